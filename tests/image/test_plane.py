from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr

from napari_medsam.errors import ImageError
from napari_medsam.image.plane import Plane


def _dask(data: np.ndarray, _: Any) -> Any:
    return pytest.importorskip("dask.array").from_array(data, chunks=5)


def _zarr(data: np.ndarray, _: Any) -> Any:
    array = zarr.create_array(store={}, shape=data.shape, chunks=(5,) * data.ndim, dtype=data.dtype)
    array[...] = data
    return array


def _memmap(data: np.ndarray, folder: Any) -> Any:
    np.save(folder / "data.npy", data)
    return np.load(folder / "data.npy", mmap_mode="r")


CONTAINERS: list[Callable[[np.ndarray, Any], Any]] = [lambda data, _: data, _dask, _zarr, _memmap]


@pytest.mark.parametrize("container", CONTAINERS, ids=["numpy", "dask", "zarr", "memmap"])
def test_reads_a_region_of_any_container(container: Any, tmp_path: Any) -> None:
    data = np.arange(4 * 12 * 13 * 3, dtype=np.int16).reshape(4, 12, 13, 3)
    plane = Plane.from_array(
        container(data, tmp_path), rgb=False, index=(2, None, None, None), channel_axis=-1, name="stack"
    )
    assert (plane.shape, plane.n_channels, plane.dtype) == ((12, 13), 3, np.int16)
    np.testing.assert_array_equal(plane.read(3, 4, 5, 6), data[2, 3:8, 4:10])
    np.testing.assert_array_equal(plane.read(3, 4, 5, 6, channels=(2, 0)), data[2, 3:8, 4:10][:, :, [2, 0]])


@pytest.mark.parametrize(
    ("shape", "options", "expected", "channels", "rgb"),
    [
        ((7, 9), {}, (7, 9), 1, False),
        ((7, 9, 3), {}, (7, 9), 3, True),
        ((7, 9, 4), {}, (7, 9), 3, True),
        ((7, 9, 4), {"channel_axis": 2}, (7, 9), 4, False),
        ((2, 7, 9), {"channel_axis": 0}, (7, 9), 2, False),
        ((5, 7, 9), {"index": (3, None, None)}, (7, 9), 1, False),
        ((5, 7, 3), {"index": (3, None, None)}, (7, 3), 1, False),
        ((5, 7, 9), {"index": (None, 2, None), "displayed": (0, 2)}, (5, 9), 1, False),
        ((5, 7, 9), {"index": (None, 2, None), "displayed": (2, 0)}, (9, 5), 1, False),
        ((7, 9), {"displayed": (1, 0)}, (9, 7), 1, False),
        ((5, 7, 9), {"index": (-1, None, None), "displayed": (1, 0)}, (9, 7), 1, False),
        ((5, 7, 9, 4), {"rgb": True, "index": (1, None, None, None)}, (7, 9), 3, True),
    ],
)
def test_finds_the_plane_in_the_axes(
    shape: tuple[int, ...], options: Any, expected: tuple[int, int], channels: int, rgb: bool
) -> None:
    plane = Plane.from_array(np.zeros(shape), **options)
    assert (plane.shape, plane.n_channels, plane.rgb) == (expected, channels, rgb)
    assert plane.read(0, 0, 2, 3).shape[:2] == (2, 3)


def test_a_transposed_plane_is_the_transposed_image() -> None:
    data = np.random.default_rng(0).integers(0, 99, (4, 6, 8, 3))
    index = (None, 5, None, None)
    plane = Plane.from_array(data, rgb=True, index=index, displayed=(2, 0))
    np.testing.assert_array_equal(plane.read(1, 1, 6, 2), data[1:3, 5, 1:7].transpose(1, 0, 2))


def test_alpha_is_dropped() -> None:
    data = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)
    np.testing.assert_array_equal(Plane.from_array(data).read(0, 0, 5, 6), data[:, :, :3])


def test_bytes_come_in_native_order() -> None:
    data = np.arange(12, dtype=">u2").reshape(3, 4)
    plane = Plane.from_array(data)
    assert plane.dtype.isnative
    assert plane.read(0, 0, 3, 4).dtype.isnative
    np.testing.assert_array_equal(plane.read(0, 0, 3, 4), data)


def test_a_pyramid_keeps_its_place_on_coarser_axes() -> None:
    fine = np.zeros((4, 8, 8), np.uint8)
    coarse = np.stack([np.full((4, 4), 10, np.uint8), np.full((4, 4), 20, np.uint8)])
    plane = Plane.from_array([fine, coarse], index=(3, None, None))
    assert plane.level_shape(1) == (4, 4)
    assert (plane.read(0, 0, 4, 4, level=1) == 20).all()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.float32(3), {}, "two axes"),
        (np.zeros(5), {}, "two axes"),
        (np.zeros((0, 5)), {}, "empty"),
        (np.zeros((5, 0, 3)), {}, "empty"),
        (np.zeros((4, 4), object), {}, "object"),
        (np.zeros((4, 4), complex), {}, "complex"),
        (np.array([["a", "b"]]), {}, "intensities"),
        (np.zeros((4, 5, 6)), {}, "3 axes"),
        (np.zeros((2, 4, 5, 3)), {"rgb": True}, "3 axes"),
        (np.zeros((4, 5)), {"index": (0, None)}, "1 axes"),
        (np.zeros((4, 5)), {"index": (0,)}, "entry for each"),
        (np.zeros((4, 5, 6)), {"index": (9, None, None)}, "leaves axis 0"),
        (np.zeros((4, 5, 6)), {"channel_axis": 3}, "no axis 3"),
        (np.zeros((4, 5, 6)), {"rgb": True}, "RGB"),
        (np.zeros((4, 5, 6)), {"index": (0, None, None), "displayed": (0, 2)}, "displayed"),
        ([np.zeros((4, 4)), np.zeros((8, 8))], {}, "finest first"),
        ([np.zeros((4, 4)), np.zeros((2, 2, 2))], {}, "number of axes"),
    ],
)
def test_refuses_what_is_no_plane_and_names_it(data: Any, options: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        Plane.from_array(data, name="my layer", **options)
    assert "my layer" in str(caught.value)


def test_a_nested_list_is_an_array_not_a_pyramid() -> None:
    assert Plane.from_array([[1, 2, 3], [4, 5, 6]]).shape == (2, 3)


@pytest.mark.parametrize("region", [(-1, 0, 2, 2), (0, 0, 5, 2), (3, 0, 2, 2), (0, 5, 1, 1)])
def test_refuses_a_region_outside(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="leaves level 0"):
        Plane.from_array(np.zeros((4, 5))).read(*region)


def test_a_broken_storage_is_an_image_error_with_the_name() -> None:
    class Broken:
        shape = (4, 4)
        dtype = np.dtype("uint8")

        def __getitem__(self, key: Any) -> Any:
            raise RuntimeError("disk gone")

    with pytest.raises(ImageError, match=r"scan 7.*disk gone"):
        Plane.from_array(Broken(), name="scan 7").read(0, 0, 2, 2)
