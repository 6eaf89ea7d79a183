"""From the window to cases on disk, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planes import corners, filled
from ui_desk import Desk

from napari_medsam.curation.dataset import CuratedDataset

A, B = (40, 60, 120, 180), (150, 20, 220, 90)


def export(desk: Desk, folder: Path) -> CuratedDataset:
    """Press Export and wait until the dock says that it is done."""
    desk.dock.export.folder.value = folder
    said = len(desk.said)
    desk.dock.export.button.click()
    desk.wait(lambda: len(desk.said) > said and desk.dock.export.button.isEnabled())
    return CuratedDataset(folder)


@pytest.fixture
def worked(desk: Desk, image: np.ndarray) -> Desk:
    """A desk with a predicted object, a corrected one of another class, and one painted by hand."""
    desk.open(image, name="cells", scale=(0.5, 0.25))
    desk.add_boxes(A)
    desk.work.choose_class(2)
    desk.work.document.set_class(2, "nucleus")
    desk.add_boxes(B)
    desk.paint(2, slice(140, 160), slice(20, 60))
    desk.paint(9, slice(0, 10), slice(0, 12))
    return desk


def test_the_case_read_back_is_what_the_window_shows(worked: Desk, tmp_path: Path, image: np.ndarray) -> None:
    dataset = export(worked, tmp_path / "set")
    assert dataset.validate() == []
    assert "1 case in" in worked.said[-1]
    [case] = list(dataset)
    labels = np.asarray(worked.labels.data)
    numbers = {int(found.source_label): found.label for found in case.objects}
    assert set(numbers) == {1, 2, 9}
    for label, number in numbers.items():
        assert np.array_equal(case.gts == number, labels == label)
    assert np.array_equal(case.gts > 0, labels > 0)
    assert case.imgs.shape == (256, 256, 3)
    assert case.spacing == (0.5, 0.25)
    first, second, painted = case.objects
    assert (first.box, first.corrected, first.class_id) == (A, False, 1)
    assert (second.box, second.corrected, second.class_name) == (B, True, "nucleus")
    assert first.predicted is not None
    assert np.array_equal(first.predicted, filled(image.shape, A))
    assert second.predicted is not None
    assert np.array_equal(second.predicted, filled(image.shape, B))
    assert (painted.box, painted.predicted, painted.corrected) == (None, None, True)
    assert case.model.encoder_hash == worked.model.encoder_hash


def test_the_same_twice_is_one_case_and_a_change_replaces_it(worked: Desk, tmp_path: Path) -> None:
    first = export(worked, tmp_path / "set").cases
    assert export(worked, tmp_path / "set").cases == first
    worked.paint(1, slice(0, 30), slice(200, 230))
    again = export(worked, tmp_path / "set")
    assert len(again) == 1
    assert np.count_nonzero(again[0].gts == 1) == np.count_nonzero(worked.mask(1))


def test_each_slice_with_masks_is_a_case(desk: Desk, tmp_path: Path, image: np.ndarray) -> None:
    stack = np.stack([np.roll(image, 31 * step, axis=1) for step in range(4)])
    desk.open(stack, name="stack")
    desk.add_boxes_at((1,), A)
    desk.add_boxes_at((3,), A, B)
    dataset = export(desk, tmp_path / "set")
    assert "2 cases in" in desk.said[-1]
    found = {case.source.index: case for case in dataset}
    assert set(found) == {(1, None, None), (3, None, None)}
    assert len(found[(3, None, None)].objects) == 2
    for (step, *_), case in found.items():
        assert np.array_equal(case.gts > 0, desk.labels.data[step] > 0)


def test_a_transposed_view_exports_the_same_case(desk: Desk, tmp_path: Path, image: np.ndarray) -> None:
    desk.open(image, name="plane")
    desk.add_boxes(A)
    before = export(desk, tmp_path / "set")[0].gts
    desk.viewer.dims.order = (1, 0)
    desk.settle()
    after = export(desk, tmp_path / "set")
    assert len(after) == 1
    assert np.array_equal(after[0].gts, before)


def test_nothing_to_export_is_said(desk: Desk, tmp_path: Path, image: np.ndarray) -> None:
    desk.open(image)
    desk.dock.tools.draw.click()
    assert desk.dock.desk.export(tmp_path / "set") is None
    assert "no masks" in desk.said[-1]
    assert not (tmp_path / "set").exists()


def test_a_folder_that_cannot_be_written_is_said(worked: Desk, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    worked.dock.export.folder.value = tmp_path / "taken"
    worked.dock.export.button.click()
    worked.wait(lambda: worked.dock.export.button.isEnabled() and "failed" in worked.said[-1])
    assert "taken" in worked.said[-1]


def test_what_is_drawn_while_it_exports_does_not_change_the_case(worked: Desk, tmp_path: Path) -> None:
    before = worked.labels.data.copy()
    done = worked.dock.desk.export(tmp_path / "set")
    assert done is not None
    worked.shapes.add_rectangles([corners((200, 200, 250, 250))])
    worked.wait(lambda: done.done() and worked.dock.export.button.isEnabled())
    worked.settle()
    assert np.array_equal(CuratedDataset(tmp_path / "set")[0].gts > 0, before > 0)


def test_the_dock_closed_right_after_export_still_writes_the_case(worked: Desk, tmp_path: Path) -> None:
    done = worked.dock.desk.export(tmp_path / "set")
    assert done is not None
    worked.viewer.close()
    assert done.done()
    assert len(CuratedDataset(tmp_path / "set")) == 1
