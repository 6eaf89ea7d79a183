"""Processes that die in the middle, and processes that share one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from embedding_fakes import FakeModel, make_plane, make_request

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import embed
from napari_medsam.image.plane import Plane

FIELDS = 20
KILLS = 4


def start(store: Path, fields: int = FIELDS) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, str(here / "embedding_child.py"), str(store), str(fields)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def lines_until_killed(child: subprocess.Popen[str], encodes: int, seconds: float) -> list[str]:
    """Kill the child some time after its encoder was called `encodes` times; gives all that it said."""
    go(child)
    assert child.stdout is not None
    said: list[str] = []
    while sum(line.startswith("begun") for line in said) < encodes:
        line = child.stdout.readline()
        assert line, child.stderr and child.stderr.read()
        said.append(line)
    time.sleep(seconds)  # the random moment, within an encode, a write or a rename
    child.kill()
    rest, _ = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    return [*said, *rest.splitlines()]


def keys(said: list[str], word: str) -> list[str]:
    return [line.split()[1] for line in said if line.startswith(word)]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("seed", [0])
def test_a_kill_loses_at_most_the_field_in_work(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    begun: Counter[str] = Counter()
    kept: set[str] = set()
    for _ in range(KILLS):
        said = lines_until_killed(start(tmp_path), int(rng.integers(1, 6)), float(rng.uniform(0, 0.06)))
        assert not kept & set(keys(said, "begun"))  # what was finished is never encoded again
        begun.update(keys(said, "begun"))
        kept.update(keys(said, "kept"))
    last = start(tmp_path)
    said = last.communicate("go\n", timeout=60)[0].splitlines()
    assert last.returncode == 0
    assert said[-1] == "end"
    assert not kept & set(keys(said, "begun"))
    begun.update(keys(said, "begun"))
    assert len(begun) == FIELDS
    assert begun.total() <= FIELDS + KILLS  # at most one field each
    assert_store_is_whole(tmp_path, FIELDS)


def assert_store_is_whole(store: Path, fields: int) -> None:
    cache, model = EmbeddingCache(store), FakeModel()
    plane = make_plane(shape=(8, 4 * fields + 4))
    cache.prune()
    assert cache.stats().entries == fields
    assert len([path for path in store.rglob("*") if path.is_file()]) == fields  # no half-written file left
    for at in range(fields):
        found = embed(model, cache, make_request(plane, at), lookup_only=True)
        assert found is not None
        assert_is_right(found.key, found.features, plane, at)
    assert model.calls == 0


def test_two_processes_may_fill_one_store(tmp_path: Path) -> None:
    children = [start(tmp_path), start(tmp_path)]
    for child in children:
        go(child)
    reader, model = EmbeddingCache(tmp_path, memory_bytes=0), FakeModel()
    plane = make_plane(shape=(8, 4 * FIELDS + 4))
    looked = 0
    while any(
        child.poll() is None for child in children
    ):  # a third one reads meanwhile: whole entries or none
        looked_at = looked % FIELDS
        found = embed(model, reader, make_request(plane, looked_at), lookup_only=True)
        looked += 1
        if found is not None:
            assert_is_right(found.key, found.features, plane, looked_at)
    begun: Counter[str] = Counter()
    for child in children:
        out, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
        assert err == ""
        begun.update(keys(out.splitlines(), "begun"))
    assert looked
    assert len(begun) == FIELDS
    assert max(begun.values()) <= 2
    assert_store_is_whole(tmp_path, FIELDS)


def assert_is_right(key: str, features: np.ndarray, plane: Plane, at: int) -> None:
    model = FakeModel()
    fresh = embed(model, None, make_request(plane, at))
    assert model.calls == 1
    assert fresh.key == key
    assert np.array_equal(features, fresh.features)
