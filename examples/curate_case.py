"""Masks to a training case on disk and back, without a window.

python examples/curate_case.py DATASET
"""

from __future__ import annotations

import sys

import numpy as np

from napari_medsam import CuratedDataset, load_model
from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.samples import SAMPLES, read_sample


def main(folder: str) -> None:
    """Segment the histology sample, correct one mask, and append the case to a dataset."""
    image, sample = read_sample("ihc"), SAMPLES["ihc"]
    masks = load_model("lite-medsam").segment(image, sample.boxes)

    corrected = masks.copy()
    corrected[0, :320] = False  # stands for what a person fixes with the brush
    labels = np.zeros(image.shape[:2], np.uint8)
    for label, mask in enumerate(corrected, start=1):
        labels[mask] = label

    class_ids = {name: number for number, name in enumerate(dict.fromkeys(sample.classes), start=1)}
    objects = tuple(
        CaseObject(
            label=label,
            class_name=name,
            class_id=class_ids[name],
            box=box,
            predicted=mask,
            corrected=label == 1,
        )
        for label, (name, box, mask) in enumerate(
            zip(sample.classes, sample.boxes, masks, strict=True), start=1
        )
    )
    case = Case(imgs=image, gts=labels, spacing=(1.0, 1.0), objects=objects, source=Provenance(layer="ihc"))

    dataset = CuratedDataset(folder, create=True)
    path = dataset.append(case)  # the same content gets the same name: appending twice changes nothing
    problems = dataset.validate()
    print(f"{path.name}: {len(dataset)} case(s), {len(problems)} problem(s)")


if __name__ == "__main__":
    main(sys.argv[1])
