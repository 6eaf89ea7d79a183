"""An object that nobody said anything about is one that nobody corrected."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_medsam.curation.case import Case, CaseObject, Prompts, Provenance
from napari_medsam.curation.case_files import read_case, write_case
from napari_medsam.curation.dataset import CuratedDataset


def plain_case() -> Case:
    gts = np.zeros((20, 30), np.uint8)
    gts[2:6, 3:9] = 1
    imgs = np.zeros((20, 30, 3), np.uint8)
    return Case(imgs, gts, (1.0, 1.0), (CaseObject(1, "cell", 1),), Provenance(layer="plain"))


def test_it_counts_as_untouched_in_file_manifest_and_summary(tmp_path: Path) -> None:
    [item] = read_case(write_case(tmp_path / "one", plain_case())).objects
    assert (item.corrected, item.predicted, item.box, item.prompts) == (False, None, None, Prompts())
    dataset = CuratedDataset(tmp_path / "many", create=True)
    dataset.append(plain_case())
    assert [entry.corrected for entry in dataset.manifest.cases] == [0]
    assert (dataset.summary().objects, dataset.summary().corrected) == (1, 0)
