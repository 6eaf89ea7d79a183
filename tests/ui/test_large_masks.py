"""Masks that lie on disk: a stack whose labels would not fit into memory, and labels that the user brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from planes import filled
from ui_desk import Desk

from napari_medsam.layers import make as layers_module
from napari_medsam.layers import masks as masks_module

A, B = (40, 60, 120, 180), (150, 20, 220, 90)


@pytest.fixture
def stack(image: np.ndarray) -> np.ndarray:
    return np.stack([np.roll(image, 20 * step, axis=0) for step in range(3)])


@pytest.fixture
def on_disk(desk: Desk, stack: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    monkeypatch.setattr(layers_module, "IN_MEMORY", 1000)
    monkeypatch.setattr(layers_module.tempfile, "tempdir", str(tmp_path))
    desk.open(stack, name="stack")
    desk.viewer.dims.set_current_step(0, 1)
    desk.dock.tools.draw.click()
    return desk


def test_they_lie_in_a_folder_that_is_told(on_disk: Desk, tmp_path: Path) -> None:
    assert isinstance(on_disk.labels.data, zarr.Array)
    [folder] = tmp_path.glob("napari-medsam-masks-*")
    assert any(str(folder) in text for text in on_disk.said)


def test_masks_are_drawn_corrected_undone_and_exported(on_disk: Desk, tmp_path: Path) -> None:
    on_disk.add_boxes_at((1,), A, B)
    expected = filled((256, 256), A) * 1 + filled((256, 256), B) * 2
    assert np.array_equal(on_disk.labels.data[1], expected)
    assert not on_disk.labels.data[0].any()
    on_disk.paint(1, slice(0, 5), slice(0, 7))
    assert on_disk.part(1).corrected
    assert (on_disk.labels.data[1, :5, :7] == 1).all()
    on_disk.undo()
    assert np.array_equal(on_disk.labels.data[1], expected)
    assert not on_disk.part(1).corrected
    done = on_disk.dock.desk.export(tmp_path / "cases")
    assert done is not None
    assert len(done.result(60)) == 1
    on_disk.settle()


def test_a_single_plane_is_left_to_memory(
    desk: Desk, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_module, "IN_MEMORY", 1000)
    desk.open(image)
    desk.dock.tools.draw.click()
    assert isinstance(desk.labels.data, np.ndarray)


@pytest.mark.parametrize("fits", [True, False])
def test_selected_labels_take_the_masks_if_they_fit(
    desk: Desk, stack: np.ndarray, tmp_path: Path, fits: bool
) -> None:
    shape = stack.shape if fits else (3, 200, 256)
    own = zarr.create_array(tmp_path / "own.zarr", shape=shape, chunks=(1, 64, 64), dtype="uint16")
    desk.open(stack, name="stack")
    layer = desk.viewer.add_labels(own)
    desk.viewer.layers.selection.active = layer
    desk.dock.tools.draw.click()
    assert (desk.labels is layer) is fits
    on_screen = int(desk.viewer.dims.current_step[0])
    desk.add_boxes_at((on_screen,), A)
    assert bool(own[:].any()) is fits
    if fits:
        assert np.array_equal(own[on_screen] == 1, filled((256, 256), A))


@pytest.mark.parametrize(("patience", "expected"), [(10.0, 41), (-1.0, 2**15 - 1)])
def test_labels_already_there_are_never_handed_out_again(
    desk: Desk,
    stack: np.ndarray,
    tmp_path: Path,
    patience: float,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masks_module, "BLOCK", 10_000)
    own = zarr.create_array(tmp_path / "own.zarr", shape=stack.shape, chunks=(1, 64, 64), dtype="uint16")
    own[2, 200:, 200:] = 41
    desk.open(stack, name="stack")
    layer = desk.viewer.add_labels(own)
    assert masks_module.MaskLayer(layer, desk.work.axes).largest(patience) == expected
