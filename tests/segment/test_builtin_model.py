"""The public API with the built-in model on an image that ships with scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import napari_medsam
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.evaluate.metrics import dice_coefficient
from napari_medsam.geometry import bbox_of
from napari_medsam.image.field import Field
from napari_medsam.segment.segmenter import Segmenter


@pytest.fixture(scope="module")
def coins() -> tuple[np.ndarray, list[np.ndarray]]:
    """The image and its two largest coins, filled, by threshold."""
    from skimage.data import coins
    from skimage.filters import threshold_otsu

    image = np.asarray(coins())
    labels, count = ndimage.label(ndimage.binary_fill_holes(image > threshold_otsu(image)))
    objects = [labels == label for label in range(1, count + 1)]
    squares = [mask for mask in objects if max(_sides(mask)) < 1.2 * min(_sides(mask))]
    return image, sorted(squares, key=np.sum, reverse=True)[:2]


def _sides(mask: np.ndarray) -> tuple[int, int]:
    r0, c0, r1, c1 = bbox_of(mask) or (0, 0, 0, 0)
    return r1 - r0, c1 - c0


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return napari_medsam.load_model("lite-medsam", device="cpu", cache=None, backend="torch")


@pytest.mark.parametrize("number", [0, 1])
def test_a_box_around_a_coin_gives_the_coin(
    segmenter: Segmenter, coins: tuple[np.ndarray, list[np.ndarray]], number: int
) -> None:
    image, objects = coins
    r0, c0, r1, c1 = bbox_of(objects[number]) or (0, 0, 0, 0)
    # A coin is small for the model on the whole plane; in a field of two and a half coins it is not.
    side = int(2.5 * max(r1 - r0, c1 - c0))
    row = min(max(0, (r0 + r1 - side) // 2), image.shape[0] - side)
    col = min(max(0, (c0 + c1 - side) // 2), image.shape[1] - side)
    (mask,) = segmenter.segment(image, [[r0, c0, r1, c1]], field=Field(row, col, side, side, "centred"))
    assert dice_coefficient(mask, objects[number]) > 0.9


def test_a_cached_embedding_gives_the_same_masks(
    segmenter: Segmenter, coins: tuple[np.ndarray, list[np.ndarray]], tmp_path: Path
) -> None:
    image, objects = coins
    boxes = [bbox_of(mask) for mask in objects]
    keeping = Segmenter(segmenter.model, EmbeddingCache(tmp_path))
    fresh = keeping.segment(image, boxes, field="whole")  # type: ignore[arg-type]
    reading = Segmenter(segmenter.model, EmbeddingCache(tmp_path))
    np.testing.assert_array_equal(reading.segment(image, boxes, field="whole"), fresh)  # type: ignore[arg-type]
    assert reading.cache is not None
    assert reading.cache.stats().entries == 1


def test_the_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_MEDSAM_CACHE", str(tmp_path / "kept"))
    cache = napari_medsam.load_model(device="cpu", backend="torch").cache
    assert cache is not None
    assert cache.folder == tmp_path / "kept"
