"""Embeddings for training: made once, found again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from finetune_fakes import FRAME, MemoryCache, PatchEncoder, disc_case, disc_samples, tiny_model

from napari_medsam.errors import Cancelled
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.features import FeatureStore
from napari_medsam.finetune.samples import samples_of
from napari_medsam.model.local import MedSAM
from napari_medsam.segment.fields import DEFAULT_POLICY

ONE = 256 * 16 * 16 * 2


def test_a_field_is_embedded_once_for_all_its_objects(tiny: MedSAM, encoder: PatchEncoder) -> None:
    case = disc_case(0, (64, 64), count=2, radius=14)
    both = samples_of(case, "case", FinetuneConfig(), FRAME, DEFAULT_POLICY)
    shared = [both[0], both[0], *disc_samples([1])]
    store = FeatureStore(tiny, MemoryCache())  # type: ignore[arg-type]
    assert list(store.fill(shared)) == [(1, 2, False), (2, 2, False)]
    assert encoder.calls == 2
    assert store(shared[0]) is store(shared[1])
    assert store(shared[0]).shape == (256, 16, 16)
    assert encoder.calls == 2


def test_what_is_in_the_cache_is_a_hit(tiny: MedSAM, encoder: PatchEncoder) -> None:
    cache = MemoryCache()
    list(FeatureStore(tiny, cache).fill(disc_samples([0, 1])))  # type: ignore[arg-type]
    again = FeatureStore(tiny, cache)  # type: ignore[arg-type]
    assert [hit for _, _, hit in again.fill(disc_samples([1, 2]))] == [True, False]
    assert encoder.calls == 3


def test_without_a_cache_everything_stays_in_memory(tiny: MedSAM, encoder: PatchEncoder) -> None:
    found = disc_samples(range(4))
    store = FeatureStore(tiny, None, memory_bytes=ONE)
    list(store.fill(found))
    for sample in found:
        assert np.isfinite(store(sample)).all()
    assert encoder.calls == 4


def test_what_memory_drops_is_read_and_what_the_cache_drops_is_made_again(
    tiny: MedSAM, encoder: PatchEncoder
) -> None:
    found, cache = disc_samples(range(4)), MemoryCache()
    store = FeatureStore(tiny, cache, memory_bytes=ONE)  # type: ignore[arg-type]
    list(store.fill(found))
    kept = [store(sample).copy() for sample in found]
    assert encoder.calls == 4
    cache.kept.clear()
    for sample, before in zip(found, kept, strict=True):
        np.testing.assert_array_equal(store(sample), before)
    assert encoder.calls in (7, 8)  # one may have been in memory still


def test_threads_that_crowd_each_other_out_of_memory_get_their_own(encoder: PatchEncoder) -> None:
    found = disc_samples(range(4))
    store = FeatureStore(tiny_model(encoder), MemoryCache(), memory_bytes=ONE)  # type: ignore[arg-type]
    list(store.fill(found))
    wanted = [store(sample).copy() for sample in found]
    store._cache.kept.clear()  # type: ignore[union-attr]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for got, before in zip(pool.map(store, found), wanted, strict=True):
                np.testing.assert_array_equal(got, before)


def test_stopping_ends_between_fields_and_loses_nothing(tiny: MedSAM, encoder: PatchEncoder) -> None:
    cache = MemoryCache()
    store = FeatureStore(tiny, cache)  # type: ignore[arg-type]
    with pytest.raises(Cancelled):
        list(store.fill(disc_samples(range(5)), lambda: encoder.calls == 2))
    assert (encoder.calls, len(cache.kept)) == (2, 2)
    assert list(store.fill([])) == []
