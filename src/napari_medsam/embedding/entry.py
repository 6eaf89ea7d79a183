"""One cache entry: one embedding in one file, a zipped Zarr v3 array that any Zarr reader opens.

A file is what can be renamed in one step, so an entry is whole or absent. What is read is trusted only
after its checksums, shape, dtype, stored key and values have been checked.
"""

from __future__ import annotations

import errno
import math
import os
import platform
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from zarr.core.common import JSON

Features = npt.NDArray[np.float16]

SHAPE = (256, 64, 64)
SUFFIX = ".zarr.zip"
KIND = "napari-medsam embedding"
ZARR_FORMAT: Literal[3] = (
    3  # version 2 could name a pickling filter; version 3 has none, so reading executes nothing
)
LARGEST_FILE = 4 * 2**20  # twice an uncompressed entry: anything larger is not ours
STALE_SECONDS = 3600.0


class BrokenEntryError(Exception):
    """A file in an entry's place that is not that entry. Never leaves the cache."""


def write_entry(
    path: Path, key: str, features: Features, info: Mapping[str, str | int | float] | None = None
) -> int:
    """Write one embedding to `path`, whole or not at all; gives the file's size in bytes.

    `features` is (256, 64, 64) float16, finite. `info` becomes attributes beside the key. An entry already
    there is replaced. The file is not forced to the disk: one torn by a power cut fails its checksums and is
    a miss. Raises OSError when the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(key))
    try:
        _write_zarr(temporary, {**(info or {}), "kind": KIND, "version": 1, "key": key}, features)
        size = temporary.stat().st_size
        os.replace(temporary, path)
    except PermissionError:
        # Windows refuses to replace a file that another process is reading: that one is as good as ours.
        if not path.is_file() or os.name != "nt":
            raise
        size = 0
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _write_zarr(path: Path, attributes: dict[str, JSON], features: Features) -> None:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import ZipStore

    with ZipStore(path, mode="w") as store:
        zarr.create_array(
            store,
            data=features,
            chunks=SHAPE,
            # Measured on LiteMedSAM's embeddings (benchmarks/cache.py): smaller than any faster setting, and
            # the slower ones save 1 % more for ten times the time.
            compressors=[BloscCodec(typesize=2, cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()],
            fill_value=math.nan,  # a missing chunk reads as NaN and so is a miss; zeros would be a lie
            dimension_names=("channel", "row", "col"),
            attributes=attributes,
            zarr_format=ZARR_FORMAT,
        )


def read_entry(path: Path, key: str) -> Features:
    """The embedding stored under `key` at `path`: read-only (256, 64, 64) float16, finite.

    Raises BrokenEntryError when the file is anything else than this whole entry, and OSError when it is
    absent or cannot be read now (which says nothing against its content).
    """
    if not 0 < path.stat().st_size <= LARGEST_FILE or not path.is_file():
        raise BrokenEntryError(f"{path} is not an embedding")
    try:
        features = _read_zarr(path, key)
    except BrokenEntryError:
        raise
    except Exception as error:  # zipfile, json and zarr fail in many ways on bytes that are not theirs
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the system's own; the libraries' (no array, a seek before the start) are about content
        raise BrokenEntryError(f"{path} cannot be read as an embedding") from error
    if not np.isfinite(features).all():
        raise BrokenEntryError(f"{path} has features that are not finite")
    features.flags.writeable = False
    return features


def _read_zarr(path: Path, key: str) -> Features:
    import zarr
    from zarr.storage import ZipStore

    with ZipStore(path, mode="r") as store:
        array = zarr.open_array(store, mode="r", zarr_format=ZARR_FORMAT)
        attributes = array.attrs.asdict()
        if attributes.get("kind") != KIND or attributes.get("key") != key:
            raise BrokenEntryError(f"{path} holds another array than its name says")
        if array.shape != SHAPE or array.chunks != SHAPE or array.dtype != np.dtype(np.float16):
            raise BrokenEntryError(f"{path} has shape {array.shape} and dtype {array.dtype}")
        return np.asarray(array[...], dtype=np.float16)


def _temporary_name(key: str) -> str:
    return f".{key}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def is_stale_temporary(path: Path, modified: float) -> bool:
    """Whether `path` is a temporary file of ours that nobody will finish.

    One is older than an hour (`modified`: seconds since the epoch) or its process, on this host, is dead.
    """
    parts = path.name.split(".")
    if len(parts) != 6 or parts[0] or parts[5] != "tmp" or not parts[3].isdigit():
        return False
    if time.time() - modified > STALE_SECONDS:
        return True
    import psutil

    with suppress(OverflowError):  # a number that is no process's
        return parts[2] == _host() and not psutil.pid_exists(int(parts[3]))
    return False


def _host() -> str:
    return "".join(c for c in platform.node() if c.isalnum() or c == "-") or "host"
