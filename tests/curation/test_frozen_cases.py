"""Cases that version 0.1 wrote mean what they meant: `tests/fixtures/v1` says what they hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_medsam.curation.case import Case, ContrastRecord, ModelRecord, Prompts
from napari_medsam.curation.case_files import content_hash, stored_hash, write_case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.manifest import ClassEntry, read_manifest
from napari_medsam.curation.pixels import seen_plane
from napari_medsam.curation.split import read_split, sides_of, split_cases

FROZEN = Path(__file__).parents[1] / "fixtures" / "v1"
RGB, GRAY, VOLUME = (
    "2D_field-1_801fdcf90e109a62",
    "2D_scan_7_3a49938d77bf7889",
    "3D_volume_fd3475a7209591c0",
)
MODEL = ModelRecord("lite-medsam", "e" * 64, "d" * 64, "torch-float32")


@pytest.fixture
def dataset(tmp_path: Path) -> CuratedDataset:
    return CuratedDataset(shutil.copytree(FROZEN / "dataset", tmp_path / "dataset"))


def area(mask: np.ndarray | None) -> int:
    assert mask is not None
    assert mask.dtype == bool
    return int(mask.sum())


def label_areas(case: Case) -> list[int]:
    return np.bincount(case.gts.ravel())[1:].tolist()


def test_the_manifest(dataset: CuratedDataset) -> None:
    manifest = read_manifest(FROZEN / "dataset" / "dataset.json")
    assert manifest == dataset.manifest
    assert (manifest.name, manifest.refused) == ("dataset", ())
    assert manifest.classes == (
        ClassEntry(1, "cell", "#e6194b"),
        ClassEntry(2, "debris", "#56b4e9"),
        ClassEntry(3, "organ", "#009e73"),
        ClassEntry(4, "lesion", "#112233"),
    )
    told = [
        (case.stem, case.objects, case.corrected, case.classes, case.group, case.created)
        for case in manifest.cases
    ]
    assert told == [
        (RGB, 3, 2, {1: 2, 2: 1}, "slide A", "2026-01-02T03:04:05+00:00"),
        (GRAY, 1, 0, {1: 1}, "patient 3", "2026-01-03T03:04:05+00:00"),
        (VOLUME, 2, 2, {3: 1, 4: 1}, None, "2026-01-04T03:04:05+00:00"),
    ]
    assert [case.image_sha256[:8] for case in manifest.cases] == ["ebd57447", "f640a042", "9277b3ab"]


def test_the_folder_is_sound(dataset: CuratedDataset) -> None:
    assert dataset.validate() == []
    assert dataset.cases == (RGB, GRAY, VOLUME)
    found = dataset.summary()
    assert (found.cases, found.objects, found.corrected, found.groups) == (3, 6, 4, 2)
    assert found.classes == {"cell": 3, "debris": 1, "organ": 1, "lesion": 1}


def test_the_manifest_is_rebuilt_from_the_sidecars(dataset: CuratedDataset) -> None:
    known = dataset.manifest
    (dataset.path / "dataset.json").unlink()
    dataset.refresh()
    assert dataset.manifest.cases == known.cases
    assert [(entry.id, entry.name) for entry in dataset.classes] == [(c.id, c.name) for c in known.classes]


def test_an_rgb_plane(dataset: CuratedDataset) -> None:
    case = dataset[RGB]
    rows, cols = np.mgrid[:40, :48]
    assert np.array_equal(case.imgs, np.stack([rows * 6, cols * 5, rows + cols], -1).astype(np.uint8))
    assert (case.gts.shape, label_areas(case)) == ((40, 48), [140, 96, 140])
    assert (case.spacing, case.unit, case.group, case.field) == ((1.0, 1.0), "pixel", "slide A", "whole")
    assert case.model == MODEL
    assert case.contrast == ContrastRecord("rgb", "rgb", ((0.0, 255.0),) * 3, (0, 1, 2))
    assert case.source.path == "/data/field 1.tif"
    first, second, third = case.objects
    assert [(o.label, o.class_name, o.class_id, o.source_label) for o in case.objects] == [
        (1, "cell", 1, 12),
        (2, "debris", 2, 15),
        (3, "cell", 1, 16),
    ]
    assert [o.box for o in case.objects] == [(3.5, 5.75, 14.0, 20.25), None, (20.0, 30.0, 30.0, 44.0)]
    assert [(o.corrected, o.predicted_iou) for o in case.objects] == [
        (True, 0.875),
        (False, 0.5),
        (True, None),
    ]
    assert first.prompts == Prompts(((5.0, 6.5, 1), (13.25, 21.0, 0)))
    assert (second.prompts, third.prompts) == (Prompts(), Prompts())
    assert first.predicted is not None
    assert (area(first.predicted), area(second.predicted)) == (
        128,
        156,
    )  # before correction; they overlap none
    assert first.predicted[4:12, 6:22].all()
    assert third.predicted is None


def test_a_gray_slice(dataset: CuratedDataset) -> None:
    case = dataset[GRAY]
    rows, cols = np.mgrid[:40, :48]
    gray = ((rows * 3 + cols * 2) % 256).astype(np.uint8)
    assert np.array_equal(case.imgs, np.repeat(gray[..., None], 3, axis=2))
    assert (case.spacing, case.unit, case.group) == ((0.5, 0.25), "mm", "patient 3")
    assert case.source.index == (7, None, None)
    assert case.contrast == ContrastRecord("auto", "auto", ((103.5, 2047.25),), (0,))
    [cell] = case.objects
    assert (cell.box, cell.corrected, cell.predicted_iou) == ((9.0, 11.5, 30.5, 32.0), False, 0.9375)
    assert area(cell.predicted) == 400
    seen = seen_plane(case, 0, "scan")  # intensities again: a field of it gets percentiles of its own
    assert (seen.rgb, seen.spacing) == (False, (0.5, 0.25))
    assert np.array_equal(seen.read(0, 0, 40, 48).squeeze(), gray)


def test_a_volume(dataset: CuratedDataset) -> None:
    case = dataset[VOLUME]
    assert np.array_equal(case.imgs, (np.arange(4 * 20 * 24) % 256).astype(np.uint8).reshape(4, 20, 24))
    assert (case.gts.shape, label_areas(case)) == ((4, 20, 24), [126, 108])
    assert (case.spacing, case.unit, case.group, case.model) == ((2.5, 0.5, 0.75), "mm", None, ModelRecord())
    organ, lesion = case.objects
    assert [(o.class_name, o.class_id) for o in (organ, lesion)] == [("organ", 3), ("lesion", 4)]
    assert (organ.box, lesion.box) == ((0.0, 3.5, 5.0, 3.0, 10.5, 12.0), (12.0, 13.5, 18.0, 20.5))
    assert area(organ.predicted) == 162
    assert lesion.predicted is None
    seen = seen_plane(case, 2, "volume")  # made by a fixed window: the picture itself
    assert (seen.rgb, seen.spacing) == (True, (0.5, 0.75))


@pytest.mark.parametrize("stem", [RGB, GRAY, VOLUME])
def test_the_hash_of_the_content_is_what_it_was(dataset: CuratedDataset, stem: str, tmp_path: Path) -> None:
    case = dataset[stem]
    digest = content_hash(case)
    assert digest[:16] == stem.rpartition("_")[2]
    assert stored_hash(dataset.file(stem)) == digest
    again = write_case(tmp_path / "again", case)
    assert again.name == f"{stem}.npz"
    assert again.with_suffix(".json").read_bytes() == dataset.file(stem).with_suffix(".json").read_bytes()
    with np.load(again) as new, np.load(dataset.file(stem)) as old:
        assert new.files == old.files
        assert all(np.array_equal(new[name], old[name]) for name in old.files)


def test_exporting_the_same_case_again_adds_none(dataset: CuratedDataset) -> None:
    dataset.append(dataset[RGB], replace=True)
    assert dataset.cases == (RGB, GRAY, VOLUME)


def test_sides_are_drawn_as_they_were(dataset: CuratedDataset) -> None:
    given = read_split(FROZEN / "split.csv", dataset.cases)
    assert (given.train, given.val, given.test, given.by) == ((GRAY,), (VOLUME,), (RGB,), "table")
    drawn = sides_of(dataset, None, 0)
    assert (drawn.train, drawn.val, drawn.test, drawn.by) == ((GRAY, VOLUME), (), (RGB,), "group")
    many = split_cases({f"case {n}": f"group {n // 2}" for n in range(20)}, seed=3)
    assert many.val == ("case 18", "case 19", "case 6", "case 7")
    assert many.test == ("case 0", "case 1", "case 8", "case 9")
