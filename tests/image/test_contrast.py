from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from napari_medsam.errors import ImageError
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import PRESETS, Contrast, Window, apply_window, resolve_contrast
from napari_medsam.image.plane import Plane

AUTO = Contrast()
TYPES = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)]
TYPES += ["float16", "float32", "float64", ">i2", ">f4"]


def _image(dtype: str, shape: tuple[int, ...] = (61, 47)) -> np.ndarray:
    values = np.random.default_rng(3).normal(40, 30, shape)
    return values.clip(0 if "u" in dtype else -128, 127).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_auto_is_the_percentiles_and_the_ramp_between_them(dtype: str) -> None:
    data = _image(dtype)
    window = resolve_contrast(Plane.from_array(data), AUTO)
    lo, hi = np.percentile(data.astype(np.float64), (0.5, 99.5))
    assert window.channels == (0,)
    assert window.limits[0] == pytest.approx((lo, hi), rel=1e-6)
    expected = ((data.astype(np.float64) - lo) / (hi - lo) * 255).clip(0, 255)
    pixels = apply_window(Plane.from_array(data).read(0, 0, *data.shape), window)
    assert (pixels.shape, pixels.dtype) == ((*data.shape, 3), np.uint8)
    assert np.abs(pixels[:, :, 0] - expected).max() < 0.51
    assert (pixels == pixels[:, :, :1]).all()


def test_nan_and_infinities_are_left_out_and_nan_is_black() -> None:
    data = _image("float32")
    clean = resolve_contrast(Plane.from_array(data[5:]), AUTO)
    data[:5] = np.nan
    data[0, 0], data[0, 1] = np.inf, -np.inf
    window = resolve_contrast(Plane.from_array(data), AUTO)
    assert window == clean
    pixels = apply_window(data, window)
    assert pixels[0, 0, 0] == 255
    assert (pixels[0, 1:] == 0).all()


@pytest.mark.parametrize("value", [0, 7, -3.5, np.nan, np.inf])
@pytest.mark.parametrize("shape", [(1, 1), (9, 4)])
def test_constant_images_are_black(value: float, shape: tuple[int, int]) -> None:
    data = np.full(shape, value)
    window = resolve_contrast(Plane.from_array(data), AUTO)
    if not np.isposinf(value):
        assert (apply_window(data, window) == 0).all()
    assert np.isfinite(window.limits).all()


def test_sparse_bright_pixels_are_not_lost() -> None:
    data = np.zeros((100, 100), np.uint16)
    data[3, 3:8] = 900
    assert resolve_contrast(Plane.from_array(data), AUTO).limits == ((0.0, 900.0),)


def test_huge_floats_do_not_overflow() -> None:
    data = np.array([[-1.5e308, 0.0, 1.5e308]])
    assert apply_window(data, Window(((-1.5e308, 1.5e308),), (0,)))[0, :, 0].tolist() == [0, 128, 255]
    small = np.array([[-3e38, 0.0, 3e38]], np.float32)
    black, middle, white = apply_window(small, Window(((-3e38, 3e38),), (0,)))[0, :, 0].tolist()
    assert (black, white) == (0, 255)
    assert middle in (127, 128)


def test_booleans_are_black_and_white() -> None:
    data = np.zeros((4, 4), bool)
    data[1] = True
    pixels = apply_window(data, resolve_contrast(Plane.from_array(data), AUTO))
    assert np.unique(pixels[1]).tolist() == [255]
    assert np.unique(pixels[2]).tolist() == [0]


def test_rgb_bytes_pass_unchanged_and_other_rgb_keeps_its_hues() -> None:
    data = np.random.default_rng(0).integers(40, 200, (20, 30, 3), dtype=np.uint8)
    window = resolve_contrast(Plane.from_array(data), AUTO)
    assert window == Window(((0.0, 255.0),) * 3, (0, 1, 2))
    np.testing.assert_array_equal(apply_window(data, window), data)
    wide = resolve_contrast(Plane.from_array(data.astype(np.float32) / 255), AUTO)
    assert wide.limits[0] == wide.limits[1] == wide.limits[2]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_channels_get_limits_of_their_own(count: int) -> None:
    data = np.stack([_image("uint16") * (i + 1) for i in range(count)])
    plane = Plane.from_array(data, channel_axis=0)
    window = resolve_contrast(plane, AUTO)
    assert window.channels == tuple(range(min(count, 3)))
    assert window.limits[1][1] == 2 * window.limits[0][1]
    pixels = apply_window(plane.read(0, 0, *plane.shape), window)
    assert pixels.shape == (*plane.shape, 3)
    if count == 2:
        mean = pixels[:, :, :2].astype(int).sum(axis=2) // 2
        np.testing.assert_array_equal(pixels[:, :, 2], mean)


def test_chosen_channels_come_in_the_order_chosen() -> None:
    data = np.zeros((4, 4, 6), np.uint8)
    data[0, :, 5] = data[1, :, 2] = 200
    plane = Plane.from_array(data, channel_axis=2)
    window = resolve_contrast(plane, Contrast(channels=(5, 2)))
    assert window.channels == (5, 2)
    pixels = apply_window(plane.read(0, 0, 4, 4), window)
    assert (pixels[0, 0].tolist(), pixels[1, 0].tolist()) == ([255, 0, 127], [0, 255, 127])
    with pytest.raises(ImageError, match="no channel 6"):
        resolve_contrast(plane, Contrast(channels=(6,)))


def test_ct_windows_take_negative_values() -> None:
    data = np.array([[-1000, -500, 250, 1000, 3000]], np.int16)
    window = resolve_contrast(Plane.from_array(data), Contrast.parse("ct"))
    assert apply_window(data, window)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_parse() -> None:
    assert Contrast.parse("auto") == Contrast()
    assert Contrast.parse("CT-soft ").window == PRESETS["ct-soft"] == (-160, 240)
    manual = Contrast.parse("-20.5, 1e3")
    assert (manual.window, manual.mode, manual.name) == ((-20.5, 1000), "window", "manual")
    assert Contrast.parse(manual) is manual


@pytest.mark.parametrize("text", ["", "bone", "1", "1,2,3", "a,b", "3,3", "5,2", "nan,1", "0,inf"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ImageError, match=r"LO,HI"):
        Contrast.parse(text)


@pytest.mark.parametrize(
    "options",
    [
        {"percentiles": (5, 5)},
        {"percentiles": (-1, 50)},
        {"channels": ()},
        {"channels": (0, 1, 2, 3)},
        {"mode": "window"},
    ],
)
def test_contrast_refuses(options: Any) -> None:
    with pytest.raises(ImageError):
        Contrast(**options)


class _Counting:
    """A ramp of any size that is computed where it is read, and counts what was."""

    dtype = np.dtype("float32")

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.read = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, cols = (np.arange(*part.indices(n)) for part, n in zip(key, self.shape, strict=True))
        self.read += rows.size * cols.size
        return ((rows[:, None] + 0.5) / self.shape[0] + (cols + 0.5) / self.shape[1]).astype(np.float32)


@pytest.mark.parametrize("shape", [(20_000, 30_000), (5, 10**7), (10**7, 3)])
def test_a_huge_plane_is_sampled_from_end_to_end(shape: tuple[int, int]) -> None:
    array = _Counting(shape)
    lo, hi = resolve_contrast(Plane.from_array(array), AUTO).limits[0]
    assert 2**18 < array.read <= 2**21
    assert (lo, hi) == pytest.approx((0.1, 1.9), abs=0.12)


def test_a_pyramid_is_sampled_at_a_coarse_level() -> None:
    levels = [_Counting((8000 >> i, 8000 >> i)) for i in range(6)]
    resolve_contrast(Plane.from_array(levels), AUTO)
    assert [level.read for level in levels] == [0, 0, 0, 1000 * 1000, 0, 0]


def test_a_part_of_a_plane_has_limits_of_its_own() -> None:
    pixels = _image("uint16", (120, 90))
    pixels[30:70, 20:50] //= 7
    plane = Plane.from_array(pixels)
    expected = np.percentile(pixels[30:70, 20:50], [0.5, 99.5])
    assert resolve_contrast(plane, AUTO, Box(30, 20, 70, 50)).limits[0] == pytest.approx(tuple(expected))
    assert resolve_contrast(plane, AUTO, Box(0, 0, 120, 90)) == resolve_contrast(plane, AUTO)
    manual = Contrast("window", (3.0, 9.0))
    assert resolve_contrast(plane, manual, Box(30, 20, 70, 50)).limits == ((3.0, 9.0),)


def test_a_large_part_of_a_pyramid_is_sampled_at_a_coarse_level_and_nowhere_else() -> None:
    levels = [_Counting((8000 >> i, 8000 >> i)) for i in range(6)]
    lo, hi = resolve_contrast(Plane.from_array(levels), AUTO, Box(4000, 0, 8000, 4000)).limits[0]
    assert [level.read for level in levels] == [0, 0, 1000 * 1000, 0, 0, 0]
    assert (lo, hi) == pytest.approx((0.5, 1.5), abs=0.06)
    tiny = [_Counting((8000 >> i, 8000 >> i)) for i in range(6)]
    resolve_contrast(Plane.from_array(tiny), AUTO, Box(7991, 7, 8000, 20))
    assert [level.read for level in tiny] == [9 * 13, 0, 0, 0, 0, 0]


def test_resolving_a_common_image_is_cheap() -> None:
    plane = Plane.from_array(_image("uint16", (512, 512)))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        resolve_contrast(plane, AUTO)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_foreground_percentiles_leave_the_background_out(shift: float) -> None:
    """Most of an MR plane is air: zero, or another constant once it was standardised."""
    data = np.zeros((80, 60), np.float32)
    data[20:40, 20:40] = np.linspace(1, 5, 400, dtype=np.float32).reshape(20, 20)
    plane = Plane.from_array(data + np.float32(shift))
    window = resolve_contrast(plane, Contrast(foreground=True))
    wanted = np.percentile(data[20:40, 20:40], (0.5, 99.5)) + shift
    assert window.limits[0] == pytest.approx(tuple(wanted), rel=1e-5)
    assert resolve_contrast(plane, AUTO).limits[0][0] == shift
    nothing = Plane.from_array(np.zeros((8, 8)))
    assert resolve_contrast(nothing, Contrast(foreground=True)).limits == ((0.0, 0.0),)
