"""SCALE.md says what its inputs give, and the formulas hold for a store that embed.py wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fit_child import TinyChoice

from napari_medsam_training import embed, scale
from napari_medsam_training.corpus.store import EmbeddingStore

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture
def known() -> scale.Inputs:
    return scale.Inputs(**json.loads((TRAINING / "scale.json").read_text("utf-8")))


def test_the_page_is_what_the_inputs_give(known: scale.Inputs) -> None:
    assert (TRAINING / "SCALE.md").read_text("utf-8") == scale.report(known, scale.costs(1_000_000, known))


def test_costs_follow_what_was_measured(known: scale.Inputs) -> None:
    one = scale.costs(1_000_000, replace(known, cases=10, fields=20, samples=30, encode_s=0.5, learn_s=0.25))
    assert (one.fields, one.samples) == (2_000_000, 3_000_000)
    assert one.encode_hours == pytest.approx(2_000_000 * 0.5 / 3600)
    assert one.learn_hours == pytest.approx(scale.EPOCHS * 3_000_000 * 0.25 / 3600)
    assert one.raw_bytes == 2_000_000 * 2 * 2**20


def test_stored_bytes_and_files_are_those_of_a_real_store(known: scale.Inputs, tmp_path: Path) -> None:
    from finetune_fakes import write_discs

    write_discs(tmp_path / "dataset", range(32), count=2)
    options = ["--shard-size", "100000", "--quiet"]
    assert embed.main([str(tmp_path / "dataset"), str(tmp_path / "store"), *options], TinyChoice()) == 0
    (shard,) = EmbeddingStore(tmp_path / "store").shards()
    features, targets = (scale.size_of(shard.path / name) for name in ("features", "targets"))
    sizes = replace(
        known,
        cases=32,
        fields=shard.fields,
        samples=len(shard),
        feature_bytes=features / shard.fields,
        target_bytes=targets / len(shard),
        table_bytes=(shard.path / "zarr.json").stat().st_size / len(shard),
    )
    found = scale.costs(32, sizes)
    assert found.shards == 1
    assert found.files == sum(path.is_file() for path in shard.path.rglob("*"))
    assert found.stored_bytes == pytest.approx(scale.size_of(shard.path))
