"""Zero-shot accuracy on a few real images of each set: what benchmarks/zero_shot.py measures in full."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.real_data
IMAGES = 3


@pytest.fixture(scope="module")
def zero_shot() -> Any:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("zero_shot")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def data(zero_shot: Any) -> Path:
    folder: Path = zero_shot.data_folder()
    if not all((folder / name).is_dir() for name in zero_shot.SETS):
        pytest.skip(f"the real image sets are not in {folder}; name their folder in NAPARI_MEDSAM_DATA")
    return folder


def test_as_good_as_the_published_sequence(zero_shot: Any, data: Path) -> None:
    segmenter = zero_shot.load_model("lite-medsam-box", device="cpu", cache=None)
    published = zero_shot.PublishedSequence()
    results = [zero_shot.compare(data / name, segmenter, published, IMAGES) for name in zero_shot.SETS]
    total = zero_shot.overall(results)
    print(zero_shot.report([*results, total]))
    assert total.objects >= 3 * IMAGES
    assert total.ours >= zero_shot.MIN_DSC
    assert abs(total.difference) <= zero_shot.MAX_DIFFERENCE
    # One set of a few images may stray a little further than all of it does.
    assert all(abs(result.difference) <= 2 * zero_shot.MAX_DIFFERENCE for result in results)


def test_the_cache_and_the_torch_backend_change_nothing(zero_shot: Any, data: Path, tmp_path: Path) -> None:
    from napari_medsam.embedding.cache import EmbeddingCache

    image, mask = next(zero_shot.read_pairs(data / "polyp_kvasir", 1))
    boxes = [zero_shot.box_from_mask(item, np.random.default_rng(0)) for item in zero_shot.objects_of(mask)]
    cache = EmbeddingCache(tmp_path)
    fresh = zero_shot.load_model(cache=cache, device="cpu", backend="torch").segment(image, boxes)
    assert cache.stats().entries == 1
    cached = zero_shot.load_model(cache=EmbeddingCache(tmp_path), device="cpu", backend="torch")
    np.testing.assert_array_equal(cached.segment(image, boxes), fresh)
    unkept = zero_shot.load_model(cache=None, device="cpu").segment(image, boxes)
    for one, other in zip(fresh, unkept, strict=True):
        assert zero_shot.dice_coefficient(one, other) > 0.99
