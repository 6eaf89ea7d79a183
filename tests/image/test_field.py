from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Window
from napari_medsam.image.field import Field, Frame, read_field, whole_field
from napari_medsam.image.plane import Plane

RGB = Window(((0.0, 255.0),) * 3, (0, 1, 2))
GREY = Window(((0.0, 255.0),), (0,))


class Recorder:
    """An array that notes which regions were read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.touched = np.zeros(array.shape[:2], dtype=int)
        self.largest = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        self.touched[key[:2]] += 1
        self.largest = max(self.largest, self.touched[key[:2]].size)
        return self.array[key]


def _pixels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _area(data: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Area averaging the slow way: repeat each pixel `size` times, then average blocks of the old length."""
    tall = np.repeat(np.moveaxis(data.astype(np.float64), axis, 0), size, axis=0)
    blocks = tall.reshape(size, data.shape[axis], *tall.shape[1:])
    return np.moveaxis(blocks.mean(axis=1), 0, axis)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(1, 8))
def test_area_averages_what_each_pixel_covers(height: int, width: int, size: int) -> None:
    data = _pixels((height, width, 3))
    frame, field = Frame(size), whole_field((height, width))
    got = read_field(Plane.from_array(data), field, RGB, frame)
    h, w = frame.shape(field)
    expected = _area(_area(data, h, 0), w, 1)
    assert got.shape == (h, w, 3)
    assert np.abs(got - expected).max() <= 0.501


@pytest.mark.parametrize("squash", [False, True])
def test_enlarging_interpolates_between_pixel_centres(squash: bool) -> None:
    torch = pytest.importorskip("torch")
    data = _pixels((20, 31))
    frame, field = Frame(96, squash), whole_field((20, 31))
    got = read_field(Plane.from_array(data), field, GREY, frame)
    expected = torch.nn.functional.interpolate(
        torch.tensor(data.astype(np.float32))[None, None], frame.shape(field), mode="bilinear"
    )[0, 0].numpy()
    assert np.abs(got[:, :, 0] - expected).max() <= 0.502


def test_the_frames_own_size_passes_unchanged() -> None:
    data = _pixels((64, 40, 3))
    got = read_field(Plane.from_array(data), whole_field((64, 40)), RGB, Frame(64))
    np.testing.assert_array_equal(got, data)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("squash", [False, True])
def test_the_other_filters_are_pillows(resample: Any, squash: bool) -> None:
    data = _pixels((90, 70, 3))
    frame, field = Frame(50, squash, resample), Field(10, 5, 60, 40)
    got = read_field(Plane.from_array(data), field, RGB, frame)
    h, w = frame.shape(field)
    kernel = Image.Resampling[resample.upper()]
    np.testing.assert_array_equal(got, Image.fromarray(data[10:70, 5:45]).resize((w, h), kernel))


def test_the_window_comes_before_the_resize() -> None:
    data = np.tile(np.array([[0, 4000]], np.uint16), (8, 4))
    got = read_field(Plane.from_array(data), whole_field((8, 8)), Window(((0.0, 1000.0),), (0,)), Frame(4))
    assert np.unique(got).tolist() == [128]  # the mean of 0 and 255, not of 0 and 4000


@pytest.mark.parametrize(
    ("shape", "frame", "expected"),
    [
        ((512, 512), Frame(), (256, 256)),
        ((577, 433), Frame(), (256, 192)),
        ((1, 5000), Frame(), (1, 256)),
        ((1, 1), Frame(), (256, 256)),
        ((577, 433), Frame(1024, squash=True), (1024, 1024)),
    ],
)
def test_frame_shape(shape: tuple[int, int], frame: Frame, expected: tuple[int, int]) -> None:
    field = whole_field(shape)
    assert frame.shape(field) == expected
    assert frame.scale(field) == (expected[0] / shape[0], expected[1] / shape[1])
    pixels = read_field(Plane.from_array(_pixels(shape)), field, GREY, frame)
    assert (pixels.shape, pixels.dtype) == ((*expected, 3), np.uint8)


def test_boxes_go_to_the_frame() -> None:
    field, frame = Field(100, 50, 128, 64), Frame(256)
    boxes = [[100, 50, 228, 114], [110.5, 60, 120, 80]]
    inner = field.to_frame(boxes, frame)
    assert inner.dtype == np.float32
    np.testing.assert_allclose(inner, [[0, 0, 256, 128], [21, 20, 40, 60]])
    assert field.to_frame(np.zeros((0, 4)), frame).shape == (0, 4)


def test_contains() -> None:
    field = Field(10, 20, 30, 40)
    assert field.box.contains(Box(10, 20, 40, 60))
    assert not field.box.contains(Box(9.9, 20, 40, 60))
    assert not field.box.contains(Box(10, 20, 40, 60.1))


@pytest.mark.parametrize("resample", ["area", "bicubic"])
def test_only_the_fields_pixels_are_read_and_once(resample: Any) -> None:
    array = Recorder(_pixels((300, 400)))
    read_field(Plane.from_array(array), Field(100, 50, 80, 120), GREY, Frame(64, resample=resample))
    expected = np.zeros((300, 400), dtype=int)
    expected[100:180, 50:170] = 1
    np.testing.assert_array_equal(array.touched, expected)


@pytest.mark.parametrize(("side", "level"), [(2000, 2), (1024, 2), (1020, 1), (600, 1), (511, 0), (200, 0)])
def test_the_coarsest_level_that_suffices_is_read(side: int, level: int) -> None:
    levels = [Recorder(_pixels((2000 >> i, 2000 >> i))) for i in range(5)]
    field = Field(0, 0, side, side)
    got = read_field(Plane.from_array(levels), field, GREY, Frame(256))
    assert got.shape == (256, 256, 3)
    assert [i for i, array in enumerate(levels) if array.touched.any()] == [level]


def test_a_coarse_level_shows_the_same_region() -> None:
    rows, cols = np.mgrid[0:1600, 0:1200]
    fine = (rows / 1600 * 150 + cols / 1200 * 100).astype(np.float32)
    coarse = fine.reshape(400, 4, 300, 4).mean(axis=(1, 3))
    field = Field(402, 301, 801, 603)
    frame, window = Frame(128), Window(((0.0, 255.0),), (0,))
    direct = read_field(Plane.from_array(fine), field, window, frame).astype(int)
    through = read_field(Plane.from_array([fine, coarse]), field, window, frame).astype(int)
    assert np.abs(direct - through).max() <= 1


def test_tiles_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    plane, field = Plane.from_array(_pixels((700, 500, 3))), Field(33, 20, 601, 444)
    whole = read_field(plane, field, RGB, Frame(100)).astype(int)
    monkeypatch.setattr("napari_medsam.image.field._TILE", 64)
    tiled = read_field(plane, field, RGB, Frame(100)).astype(int)
    assert np.abs(whole - tiled).max() <= 1
    assert (whole != tiled).mean() < 1e-3


class Endless:
    """A very large plane that exists only where it is read."""

    shape, dtype = (40_000, 30_000), np.dtype("uint8")
    largest = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, cols = (np.arange(*part.indices(n)) for part, n in zip(key, self.shape, strict=True))
        self.largest = max(self.largest, rows.size * cols.size)
        return ((rows[:, None] // 1000 + cols // 1000) % 2 * 200).astype(np.uint8)


@pytest.mark.parametrize("resample", ["area", "bilinear"])
def test_a_huge_field_needs_bounded_memory(resample: Any) -> None:
    array = Endless()
    field = Field(1000, 2000, 8000, 6000)
    tracemalloc.start()
    try:
        got = read_field(Plane.from_array(array), field, GREY, Frame(80, resample=resample))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert array.largest <= 2048 * 2048
    assert peak < 150e6
    assert got[5, 5, 0] == 200  # the middle of a square: rows 1500, cols 2500
    assert got[15, 5, 0] == 0


@pytest.mark.parametrize(
    "field", [Field(-1, 0, 5, 5), Field(0, 0, 11, 5), Field(8, 8, 5, 5), Field(0, 0, 0, 5)]
)
def test_a_field_outside_the_plane_is_refused(field: Field) -> None:
    with pytest.raises(ValueError, match="leaves the plane"):
        read_field(Plane.from_array(_pixels((10, 10))), field, GREY, Frame())


def test_two_channels_are_joined_after_the_resize() -> None:
    data = _pixels((40, 40, 5))
    got = read_field(
        Plane.from_array(data, channel_axis=2),
        whole_field((40, 40)),
        Window(GREY.limits * 2, (4, 1)),
        Frame(20),
    )
    expected = data[:, :, [4, 1]].reshape(20, 2, 20, 2, 2).mean(axis=(1, 3))
    assert np.abs(got[:, :, :2] - expected).max() <= 0.501
    assert np.abs(got[:, :, 2] - expected.mean(axis=2)).max() <= 1.01
