"""From a snapshot of a plane, its labels and its objects to a case on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_medsam.curation.case import Case, CaseObject, ModelRecord, Prompts, Provenance
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.manifest import ClassEntry
from napari_medsam.curation.pixels import case_pixels, contrast_record
from napari_medsam.document.objects import ObjectClass, Part
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.plane import Plane


@dataclass(frozen=True, eq=False)
class PlaneSnapshot:
    """All that becomes one case: the plane, its labels (H, W), what lies on it and where it came from.

    class_ids: the class of each object by its id.
    """

    plane: Plane
    labels: npt.NDArray[np.integer]
    parts: tuple[Part, ...]
    class_ids: Mapping[int, int]
    classes: tuple[ObjectClass, ...]
    contrast: Contrast
    model: ModelRecord
    source: Provenance
    group: str
    unit: str


def write(folder: Path, snapshots: Iterable[PlaneSnapshot]) -> list[Path]:
    """Write one case a snapshot into the dataset at ``folder`` and return the .npz paths. Any thread.

    An earlier export of the same pixels is replaced; the same content twice is one case. Raises CaseError.
    """
    dataset = CuratedDataset(folder, create=True)
    entries = tuple(snapshots)
    classes = {
        found.id: ClassEntry(found.id, found.name, found.color)
        for entry in entries
        for found in entry.classes
    }
    return dataset.extend(map(to_case, entries), classes=classes.values(), replace=True)


def to_case(entry: PlaneSnapshot) -> Case:
    """Turn a snapshot into a case: pixels as the model saw them, objects numbered from 1."""
    plane = entry.plane
    boxes = [part.box.clip(plane.shape) for part in entry.parts if part.box is not None]
    imgs, window = case_pixels(plane, entry.contrast, boxes)
    present = [int(label) for label in np.unique(entry.labels) if label > 0]
    gts = np.zeros(entry.labels.shape, dtype=np.uint8 if len(present) <= 255 else np.uint16)
    known = {part.object_id: part for part in entry.parts}
    objects = []
    for number, label in enumerate(present, start=1):
        gts[entry.labels == label] = number
        objects.append(_case_object(number, label, known.get(label), entry))
    return Case(
        imgs=imgs,
        gts=gts,
        spacing=plane.spacing,
        objects=tuple(objects),
        source=entry.source,
        contrast=contrast_record(entry.contrast, window),
        field="whole",
        model=entry.model,
        group=entry.group,
        unit=entry.unit,
    )


def _case_object(number: int, label: int, part: Part | None, entry: PlaneSnapshot) -> CaseObject:
    names = {found.id: found.name for found in entry.classes}
    if part is None:  # it was in the labels before they took the masks
        return CaseObject(number, names.get(1, "object"), 1, corrected=True, source_label=label)
    box, found, class_id = part.box, part.prediction, entry.class_ids[label]
    return CaseObject(
        label=number,
        class_name=names.get(class_id, f"class {class_id}"),
        class_id=class_id,
        box=None if box is None else (box.r0, box.c0, box.r1, box.c1),
        predicted=None if found is None else found.full(entry.plane.shape),
        corrected=part.corrected,
        predicted_iou=None if found is None else found.iou,
        source_label=label,
        prompts=Prompts(tuple((point.row, point.col, int(point.positive)) for point in part.points)),
    )
