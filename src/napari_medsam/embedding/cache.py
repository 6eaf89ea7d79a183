"""Embeddings on disk and in memory, addressed by the content that they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medsam.bounded import BoundedMemory
from napari_medsam.embedding.entry import (
    SHAPE,
    SUFFIX,
    BrokenEntryError,
    Features,
    is_stale_temporary,
    read_entry,
    write_entry,
)
from napari_medsam.folders import CACHE_VARIABLE, cache_folder

FORMAT_VERSION = 1  # raise it when keys or entries change their meaning: old entries are then never read
PRUNE_TO = 0.9  # pruning goes below the cap, so that a full cache does not prune at every put
RESCAN_EVERY = 200  # puts; other processes fill the same folder, and our running total does not see theirs

_log = logging.getLogger(__name__)


def embedding_key(prepared: npt.NDArray[Any], encoder_hash: str, precision: str) -> str:
    """The name of an embedding: SHA-256 (hex) over all that it depends on, and nothing else.

    `prepared` is exactly the tensor that the encoder eats, (3, S, S) float32. Two keys are equal if and only
    if shape, dtype, bytes, `encoder_hash` and `precision` are. The decoder has no part in it. Raises
    ValueError for an object array, whose bytes would be addresses.
    """
    if prepared.dtype.hasobject:
        raise ValueError("a prepared tensor must be numeric, not of Python objects")
    header = {
        "version": FORMAT_VERSION,
        "shape": prepared.shape,
        "dtype": prepared.dtype.str,
        "encoder": encoder_hash,
        "precision": precision,
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(b"\0")  # JSON holds no NUL, so header and pixels cannot be mistaken for each other
    digest.update(np.ascontiguousarray(prepared).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class CacheStats:
    """What lies on disk: `entries` embeddings of `bytes` together, `max_bytes` allowed, in `folder`."""

    entries: int
    bytes: int
    max_bytes: int
    folder: Path


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    used: int  # ns since the epoch: the modification time, set again at each use


class EmbeddingCache:
    """Embeddings by key: the last used in memory, all in a folder that several processes may share.

    `folder` None means `cache_folder()`; it is made when first written to. Entries over `max_bytes`
    are pruned, least recently used first. A folder that cannot be read or written never breaks a result:
    reads miss, and writes give False, log one warning and say why in `problem`. Thread-safe.
    """

    def __init__(
        self, folder: Path | None = None, max_bytes: int = 10 * 2**30, memory_bytes: int = 256 * 2**20
    ) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()
        self.max_bytes = max_bytes
        self.problem: str | None = None  # why the last write failed; None when it did not
        self._warned = False
        self._memory = BoundedMemory[str, Features](memory_bytes, lambda features: features.nbytes)
        self._lock = Lock()  # guards the two counters below
        self._total: int | None = None  # bytes on disk as far as we know; None before the first scan
        self._unscanned = 0  # puts since the last scan

    def get(self, key: str) -> Features | None:
        """The embedding under `key`, (256, 64, 64) float16 and read-only, or None.

        Marks the entry as recently used. A file that is not this whole entry is removed and counts as absent.
        """
        path = self._path(key)
        features = self._memory.get(key)
        if features is None:
            features = self._read(path, key)
        if features is not None:
            with suppress(OSError):
                now = time.time_ns()
                os.utime(path, ns=(now, now))
        return features

    def _read(self, path: Path, key: str) -> Features | None:
        try:
            features = read_entry(path, key)
        except BrokenEntryError as error:
            _log.info("Removed from the embedding cache: %s", error)
            _remove(path)
            return None
        except OSError:
            return None
        self._memory.put(key, features)
        return features

    def has(self, key: str) -> bool:
        """Whether an entry is there, without reading it: cheap, and no promise that `get` finds it whole."""
        return key in self._memory or self._path(key).is_file()

    def put(
        self, key: str, features: npt.NDArray[Any], info: Mapping[str, str | int | float] | None = None
    ) -> bool:
        """Keep an embedding: (256, 64, 64), stored as float16. Gives whether it is on disk now.

        Raises ValueError for another shape or for values that are not finite in float16.
        """
        path = self._path(key)
        kept = _frozen_copy(features)
        self._memory.put(key, kept)
        try:
            size = write_entry(path, key, kept, info)
            self._grow(size)
        except OSError as error:
            self._fail(error)
            return False
        self.problem = None
        return True

    def _fail(self, error: OSError) -> None:
        self.problem = f"Embeddings are not kept on disk: {self.folder} cannot be written ({error})."
        if not self._warned:
            self._warned = True
            _log.warning("%s Free some space, or set %s to another folder.", self.problem, CACHE_VARIABLE)

    def _grow(self, size: int) -> None:
        """Count a new file; walk the folder only at first, when it may be over the cap, and now and then."""
        with self._lock:
            self._unscanned += 1
            self._total = None if self._total is None else self._total + size
            due = self._total is None or self._total > self.max_bytes or self._unscanned >= RESCAN_EVERY
        if due:
            self.prune()

    def prune(self) -> int:
        """Bring the folder under its cap, least recently used first, and clear what killed writers left.

        Gives the number of entries removed.
        """
        files = self._scan(clean=True)
        total = sum(file.size for file in files)
        removed = 0
        if total > self.max_bytes:
            for file in sorted(files, key=lambda file: file.used):
                if total <= self.max_bytes * PRUNE_TO:
                    break
                removed += _remove(file.path)
                total -= file.size
        with self._lock:
            self._total, self._unscanned = total, 0
        return removed

    def stats(self) -> CacheStats:
        """Count the entries on disk now, those of other processes included. Walks the folder."""
        files = self._scan()
        return CacheStats(len(files), sum(file.size for file in files), self.max_bytes, self.folder)

    def clear(self) -> int:
        """Remove every entry from memory and disk, no other file; gives the number of entries on disk."""
        self._memory.clear()
        removed = sum(_remove(file.path) for file in self._scan(clean=True))
        with self._lock:
            self._total = None
        return removed

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", key):
            raise ValueError(f"an embedding's key is 64 hex digits, not {key!r}")
        return self.folder / f"v{FORMAT_VERSION}" / key[:2] / f"{key}{SUFFIX}"

    def _scan(self, *, clean: bool = False) -> list[_File]:
        """The entries on disk. `clean` also removes stale temporary files."""
        entries = []
        for file in self._walk():
            if re.fullmatch(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}", file.path.name):
                entries.append(file)
            elif clean and is_stale_temporary(file.path, file.used / 1e9):
                _remove(file.path)
        return entries

    def _walk(self) -> Iterator[_File]:
        for folder in _listed(self.folder / f"v{FORMAT_VERSION}"):
            if not re.fullmatch(r"[0-9a-f]{2}", folder.name):
                continue
            for item in _listed(Path(folder.path)):
                with suppress(OSError):  # gone since it was listed: another process prunes too
                    if item.is_file(follow_symlinks=False):
                        status = item.stat(follow_symlinks=False)
                        yield _File(Path(item.path), status.st_size, status.st_mtime_ns)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError:
        return []


def _remove(path: Path) -> bool:
    """Remove a file, or an empty folder in its place; whether it is gone by our hand."""
    try:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    except OSError:
        return False
    return True


def _frozen_copy(features: npt.NDArray[Any]) -> Features:
    """A read-only float16 copy (or the array itself if it is one): no later change may reach the cache."""
    if features.shape != SHAPE:
        raise ValueError(f"an embedding has shape {SHAPE}, not {features.shape}")
    with np.errstate(over="ignore"):
        own = not features.flags.writeable and features.base is None
        kept = np.array(features, dtype=np.float16, order="C", copy=None if own else True)
    if not np.isfinite(kept).all():
        raise ValueError("an embedding must be finite in float16")
    kept.flags.writeable = False
    return kept
