"""The store: what is put comes back, whole or not at all; whatever else lies there is a miss."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from napari_medsam.embedding import entry as entry_module
from napari_medsam.embedding.cache import EmbeddingCache, embedding_key
from napari_medsam.folders import cache_folder

SHAPE = (256, 64, 64)


def make_features(seed: int = 0) -> np.ndarray:
    """Not constant, yet quick to compress: 512 random values repeated."""
    values = np.random.default_rng(seed).normal(0, 0.1, 512)
    return np.resize(values, SHAPE).astype(np.float16)


def make_key(seed: int = 0) -> str:
    return hashlib.sha256(bytes([seed])).hexdigest()


def entry_path(cache: EmbeddingCache, key: str) -> Path:
    return cache.folder / "v1" / key[:2] / f"{key}.zarr.zip"


def fresh(cache: EmbeddingCache) -> EmbeddingCache:
    """The same folder as another process would see it: nothing in memory."""
    return EmbeddingCache(cache.folder, cache.max_bytes)


def filled(cache: EmbeddingCache, seed: int = 0) -> tuple[str, Path, np.ndarray]:
    key, features = make_key(seed), make_features(seed)
    assert cache.put(key, features)
    return key, entry_path(cache, key), features


# What is put comes back


def test_what_is_put_comes_back_bit_for_bit_in_memory_and_from_disk(cache: EmbeddingCache) -> None:
    key, _, features = filled(cache)
    for reader in (cache, fresh(cache)):
        found = reader.get(key)
        assert found is not None
        assert found.dtype == np.float16
        assert found.tobytes() == features.tobytes()
        assert reader.has(key)


def test_returned_arrays_are_read_only_and_apart_from_the_callers(cache: EmbeddingCache) -> None:
    features = make_features()
    cache.put(make_key(), features)
    features[:] = 7
    for reader in (cache, fresh(cache)):
        found = reader.get(make_key())
        assert found is not None
        assert not (found == 7).any()
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1


def test_an_entry_is_a_zarr_array_that_anyone_can_read(cache: EmbeddingCache) -> None:
    key, features = make_key(), make_features()
    cache.put(key, features, {"model": "lite-medsam", "layer": "cells", "size": 3})
    with ZipStore(entry_path(cache, key), mode="r") as store:
        array = zarr.open_array(store, mode="r")
        assert np.array_equal(array[...], features)
        assert {"key": key, "model": "lite-medsam", "layer": "cells", "size": 3}.items() <= dict(
            array.attrs
        ).items()


def test_nothing_is_made_before_the_first_put(cache: EmbeddingCache) -> None:
    assert cache.get(make_key()) is None
    assert not cache.has(make_key())
    assert cache.stats().entries == 0
    assert cache.clear() == 0
    assert not cache.folder.exists()


def test_stats_count_entries_and_bytes(cache: EmbeddingCache) -> None:
    paths = [filled(cache, seed)[1] for seed in range(3)]
    stats = cache.stats()
    assert (stats.entries, stats.folder) == (3, cache.folder)
    assert stats.bytes == sum(path.stat().st_size for path in paths)


def test_the_memory_layer_forgets_the_least_recently_used(tmp_path: Path) -> None:
    nbytes = make_features().nbytes
    cache = EmbeddingCache(tmp_path, memory_bytes=2 * nbytes)
    keys = [filled(cache, seed)[0] for seed in range(2)]
    cache.get(keys[0])
    keys.append(filled(cache, 2)[0])  # drops keys[1]
    shutil.rmtree(tmp_path / "v1")
    assert [cache.get(key) is not None for key in keys] == [True, False, True]


def test_no_memory_still_reads_from_disk(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, memory_bytes=0)
    key, _, features = filled(cache)
    found = cache.get(key)
    assert found is not None
    assert np.array_equal(found, features)


@pytest.mark.parametrize(
    "features",
    [np.zeros((256, 64, 63)), np.full(SHAPE, np.nan), np.full(SHAPE, 1e6)],
    ids=["shape", "nan", "inf"],
)
def test_what_is_no_embedding_is_refused(cache: EmbeddingCache, features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an embedding"):
        cache.put(make_key(), features)
    assert cache.get(make_key()) is None


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_only_a_hash_can_be_a_key(cache: EmbeddingCache, key: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        cache.get(key)


def test_the_folder_is_the_variables_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPARI_MEDSAM_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert EmbeddingCache().folder == tmp_path / "here"
    monkeypatch.delenv("NAPARI_MEDSAM_CACHE")
    assert cache_folder().name == "embeddings"
    assert "napari-medsam" in cache_folder().parts


def test_object_arrays_have_no_key() -> None:
    with pytest.raises(ValueError, match="numeric"):
        embedding_key(np.array([object()]), "e", "p")


# Whatever else lies there is a miss


def assert_miss_and_healed(cache: EmbeddingCache, key: str) -> None:
    reader = fresh(cache)
    assert reader.get(key) is None
    assert not entry_path(cache, key).exists()
    assert reader.put(key, make_features(9))
    found = fresh(cache).get(key)
    assert found is not None
    assert np.array_equal(found, make_features(9))


def test_a_truncated_entry_is_a_miss_at_any_length(cache: EmbeddingCache) -> None:
    key, path, _ = filled(cache)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    lengths = {0, 1, 4, 30, len(whole) - 1, len(whole) - 21, len(whole) - 22, len(whole) - 23}
    lengths |= {int(n) for n in rng.integers(0, len(whole), 40)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        assert fresh(cache).get(key) is None, length
        assert not path.exists(), length


def test_a_flipped_bit_never_gives_other_features(cache: EmbeddingCache) -> None:
    key, path, features = filled(cache)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    misses = 0
    for position in rng.integers(0, 8 * len(whole), 200):
        bad = bytearray(whole)
        bad[position // 8] ^= 1 << (position % 8)
        path.write_bytes(bad)
        found = fresh(cache).get(key)
        misses += found is None
        assert found is None or np.array_equal(found, features), position
    assert misses > 150  # the others hit bytes that say nothing, such as a time stamp in the archive


def test_a_flipped_bit_is_caught_without_the_archives_checksum(cache: EmbeddingCache) -> None:
    key, path, _ = filled(cache)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chunk = bytearray(members["c/0/0/0"])
    chunk[len(chunk) // 2] ^= 1
    write_archive(path, {**members, "c/0/0/0": bytes(chunk)})
    assert_miss_and_healed(cache, key)


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_a_missing_chunk_is_a_miss_not_zeros(cache: EmbeddingCache) -> None:
    key, path, _ = filled(cache)
    with zipfile.ZipFile(path) as archive:
        metadata = archive.read("zarr.json")
    write_archive(path, {"zarr.json": metadata})
    assert_miss_and_healed(cache, key)


def test_the_right_array_under_a_wrong_name_is_a_miss(cache: EmbeddingCache) -> None:
    _, other, _ = filled(cache, 1)
    path = entry_path(cache, make_key(0))
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(other, path)
    assert_miss_and_healed(cache, make_key(0))
    assert other.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a zip", np.random.default_rng(0).bytes(5000), b"PK\x05\x06" + bytes(18), bytes(5 * 2**20)],
)
def test_foreign_bytes_are_a_miss(cache: EmbeddingCache, content: bytes) -> None:
    path = entry_path(cache, make_key())
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert_miss_and_healed(cache, make_key())


@pytest.mark.parametrize(
    ("dtype", "shape", "version", "attributes"),
    [
        ("float16", SHAPE, 3, {}),
        ("float16", SHAPE, 2, {"kind": entry_module.KIND, "key": make_key()}),
        ("float32", SHAPE, 3, {"kind": entry_module.KIND, "key": make_key()}),
        ("float16", (2, 64, 64), 3, {"kind": entry_module.KIND, "key": make_key()}),
        ("float16", SHAPE, 3, {"kind": entry_module.KIND, "key": make_key(1)}),
    ],
    ids=["attributes", "version", "dtype", "shape", "key"],
)
def test_another_zarr_array_is_a_miss(
    cache: EmbeddingCache, dtype: str, shape: tuple[int, ...], version: int, attributes: dict[str, str]
) -> None:
    path = entry_path(cache, make_key())
    path.parent.mkdir(parents=True)
    data = np.ones(shape, dtype)
    with ZipStore(path, mode="w") as store:
        array = zarr.create_array(
            store, shape=shape, chunks=shape, dtype=dtype, zarr_format=version, attributes=attributes or None
        )
        array[...] = data
    assert_miss_and_healed(cache, make_key())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stored_values_that_are_not_finite_are_a_miss(cache: EmbeddingCache, value: float) -> None:
    features = make_features()
    features[3, 4, 5] = value
    entry_module.write_entry(entry_path(cache, make_key()), make_key(), features)
    assert_miss_and_healed(cache, make_key())


def test_an_empty_folder_in_an_entrys_place_is_a_miss(cache: EmbeddingCache) -> None:
    entry_path(cache, make_key()).mkdir(parents=True)
    assert_miss_and_healed(cache, make_key())


def test_a_folder_with_content_in_an_entrys_place_is_left_alone(cache: EmbeddingCache) -> None:
    path = entry_path(cache, make_key())
    path.mkdir(parents=True)
    (path / "mine.txt").write_text("keep")
    assert cache.get(make_key()) is None
    assert not cache.put(make_key(), make_features())
    assert (path / "mine.txt").read_text() == "keep"
    assert cache.get(make_key()) is not None  # from memory


def test_an_entry_that_may_not_be_read_now_is_a_miss_and_stays(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, path, _ = filled(cache)

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    with monkeypatch.context() as patch:
        patch.setattr(entry_module, "_read_zarr", denied)
        assert fresh(cache).get(key) is None
    assert path.exists()
    assert fresh(cache).get(key) is not None


# A folder that cannot be written


def assert_works_in_memory_only(cache: EmbeddingCache, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            assert not cache.put(make_key(seed), make_features(seed))
    for seed in range(3):
        found = cache.get(make_key(seed))
        assert found is not None
        assert np.array_equal(found, make_features(seed))
    assert cache.problem is not None
    assert str(cache.folder) in cache.problem
    assert len(caplog.records) == 1
    assert fresh(cache).get(make_key()) is None


def test_a_file_in_the_folders_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("mine")
    assert_works_in_memory_only(EmbeddingCache(tmp_path / "file"), caplog)
    deeper = tmp_path / "file" / "deeper"
    caplog.clear()
    assert_works_in_memory_only(EmbeddingCache(deeper), caplog)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root writes anywhere"
)
def test_a_read_only_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    try:
        assert_works_in_memory_only(EmbeddingCache(tmp_path), caplog)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_leaves_nothing_behind(
    cache: EmbeddingCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(entry_module, "_write_zarr", half_written)
        assert_works_in_memory_only(cache, caplog)
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]
    assert cache.put(make_key(), make_features())
    assert cache.problem is None


@pytest.mark.skipif(os.name == "nt", reason="no file size limits there")
def test_a_write_that_the_system_stops_leaves_nothing_behind(tmp_path: Path) -> None:
    script = """
import resource, signal, sys, warnings
import numpy as np
from napari_medsam.embedding.cache import EmbeddingCache
warnings.simplefilter("error")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))
features = np.random.default_rng(0).normal(size=(256, 64, 64)).astype(np.float16)
cache = EmbeddingCache(sys.argv[1])
assert not cache.put("0" * 64, features)
assert cache.get("0" * 64) is not None
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("cannot be written") == 1
    assert "Exception ignored" not in ran.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# The size cap


def set_used(path: Path, seconds_ago: float) -> None:
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def test_the_least_recently_used_are_pruned_first(cache: EmbeddingCache) -> None:
    entries = [filled(cache, seed) for seed in range(5)]
    for age, (_, path, _) in enumerate(reversed(entries)):
        set_used(path, 100 + age)  # entry 0 is the oldest
    reader = EmbeddingCache(cache.folder, max_bytes=int(3.4 * entries[0][1].stat().st_size))
    assert reader.get(entries[0][0]) is not None  # ... until now
    assert reader.prune() == 2
    assert [path.exists() for _, path, _ in entries] == [True, False, False, True, True]


def test_a_hit_in_memory_counts_as_use(cache: EmbeddingCache) -> None:
    (key, path, _), (_, other, _) = filled(cache, 0), filled(cache, 1)
    set_used(path, 100)
    set_used(other, 50)
    cache.get(key)
    assert path.stat().st_mtime > other.stat().st_mtime


def test_putting_keeps_the_folder_under_its_cap(cache: EmbeddingCache) -> None:
    size = filled(cache)[1].stat().st_size
    capped = EmbeddingCache(cache.folder, max_bytes=int(4.5 * size))
    for seed in range(1, 12):
        key = filled(capped, seed)[0]
        assert capped.stats().bytes <= capped.max_bytes
        assert fresh(cache).get(key) is not None  # the newest is never the one that goes
    assert capped.stats().entries >= 3


def test_the_folder_is_not_walked_at_every_put(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []
    scan = EmbeddingCache._scan
    monkeypatch.setattr(EmbeddingCache, "_scan", lambda self, **more: walks.append(1) or scan(self, **more))
    for seed in range(20):
        filled(cache, seed)
    assert len(walks) == 1


def test_the_cap_holds_for_what_other_processes_add(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medsam.embedding.cache.RESCAN_EVERY", 5)
    size = filled(cache)[1].stat().st_size
    capped = EmbeddingCache(cache.folder, max_bytes=int(8.5 * size))
    filled(capped, 1)
    for seed in range(2, 10):
        filled(cache, seed)  # unseen by `capped`, and uncapped
    for seed in range(10, 15):
        filled(capped, seed)
    assert capped.stats().bytes <= capped.max_bytes


def test_clear_removes_our_entries_only(cache: EmbeddingCache) -> None:
    key, path, _ = filled(cache)
    mine = [path.parent / "notes.txt", path.parent / f"{key}.zarr.zip.bak", cache.folder / "thesis.tif"]
    for file in mine:
        file.write_text("mine")
    assert cache.clear() == 1
    assert cache.get(key) is None
    assert all(file.exists() for file in mine)
    assert cache.put(key, make_features())


def test_temporary_files_of_the_dead_are_cleared(cache: EmbeddingCache) -> None:
    _, path, _ = filled(cache)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = entry_module._host()

    def leave(name: str, age: float = 0) -> Path:
        file = path.parent / name
        file.write_bytes(b"half")
        set_used(file, age)
        return file

    of_the_dead = leave(f".{make_key()}.{host}.{dead.pid}.0a.tmp")
    of_the_living = leave(f".{make_key()}.{host}.{os.getpid()}.0b.tmp")
    of_another_host = leave(f".{make_key()}.elsewhere.{dead.pid}.0c.tmp")
    too_old = leave(f".{make_key()}.elsewhere.{os.getpid()}.0d.tmp", age=4000)
    foreign = leave("something.tmp", age=4000)
    fresh(cache).put(make_key(1), make_features(1))  # the first put of a process looks around
    left = [
        of_the_dead.exists(),
        of_the_living.exists(),
        of_another_host.exists(),
        too_old.exists(),
        foreign.exists(),
    ]
    assert left == [os.name == "nt", True, True, False, True]
