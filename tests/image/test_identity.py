"""Which image is which: the same pixels, told without reading them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.errors import ImageError
from napari_medsam.image.identity import BLOCK, BLOCKS, identify


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def key(*levels: Any, **about: Any) -> str:
    return identify(levels, **{"name": "image", **about}).key


class Counted:
    """A huge array of which only what is asked for is made; it counts the pixels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype, self.read = shape, np.dtype(np.uint16), 0

    def __getitem__(self, where: Any) -> np.ndarray:
        sizes = [len(range(*part.indices(n))) for part, n in zip(where, self.shape, strict=True)]
        assert all(part.start >= 0 and part.stop <= n for part, n in zip(where, self.shape, strict=True))
        self.read += int(np.prod(sizes))
        return np.full(sizes, sum(part.start for part in where) % 997, self.dtype)


def test_the_same_pixels_are_the_same_image_whatever_holds_them(tmp_path: Path) -> None:
    pixels = noise((40, 50))
    stored = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", pixels.dtype, pixels.shape)
    stored[:] = pixels
    assert key(pixels) == key(stored) == key(np.asfortranarray(pixels))
    assert key(pixels.astype(">u2")) == key(pixels.astype("<u2")) != key(pixels)


@pytest.mark.parametrize("other", [noise((40, 50), 1), noise((50, 40)), noise((40, 50)).astype(np.int16)])
def test_another_image_is_another(other: np.ndarray) -> None:
    assert key(noise((40, 50))) != key(other)


def test_rgb_is_known_by_its_plane() -> None:
    pixels = noise((40, 50, 3))
    assert identify([pixels], name="a", rgb=True).shape == (40, 50)
    assert key(pixels, rgb=True) != key(pixels)


def test_of_a_pyramid_the_coarsest_level_is_read() -> None:
    coarse = noise((100, 120))
    fine = Counted((100_000, 120_000))
    assert identify([fine, coarse], name="a").shape == (100_000, 120_000)
    assert fine.read == 0
    assert key(fine, coarse) != key(fine, noise((100, 120), 1))


@pytest.mark.parametrize(
    "shape", [(200_000, 300_000), (5000, 4, 30_000, 30_000), (3, 100_000, 100_000), (100_000, 100_000, 3)]
)
def test_one_larger_than_memory_is_only_sampled(shape: tuple[int, ...]) -> None:
    array = Counted(shape)
    assert key(array) == key(Counted(shape))
    assert 0 < array.read <= BLOCKS * BLOCK * BLOCK * 3


def test_a_change_in_a_large_one_is_seen_where_most_pixels_changed() -> None:
    pixels = noise((20, 800, 900))
    assert key(pixels) == key(pixels.copy())
    assert key(pixels) != key(255 - pixels)
    assert key(pixels) != key(np.roll(pixels, 1, axis=2))


def test_two_files_side_by_side_are_two_images_and_a_moved_one_is_still_the_same(tmp_path: Path) -> None:
    pixels = np.zeros((40, 50), np.uint8)
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path in paths:
        path.touch()
    one, other = (identify([pixels], name="a", path=path) for path in paths)
    unnamed = identify([pixels], name="c")
    assert one.matches(one)
    assert not one.matches(other)
    assert one.matches(unnamed)
    assert unnamed.matches(one)
    paths[0].unlink()
    assert one.matches(other)


def test_pixels_that_cannot_be_read_are_told() -> None:
    class Broken(Counted):
        def __getitem__(self, where: Any) -> np.ndarray:
            raise OSError("gone")

    with pytest.raises(ImageError, match="far away"):
        identify([Broken((9, 9))], name="far away")
