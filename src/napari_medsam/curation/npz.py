"""Arrays in a .npz: written with the same bytes each time, read without trusting the file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from napari_medsam.curation.problem import BrokenCase

MAX_ARRAY_BYTES = 4 * 2**30
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_LEVEL = 6
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,  # a compression method this Python lacks
    RuntimeError,  # what zipfile raises for an encrypted member
)


@dataclass(frozen=True)
class ArrayHeader:
    """What a .npz says about one of its arrays, read without reading the array."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_npz(stream: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` as a compressed .npz; the same arrays give the same bytes.

    `numpy.savez_compressed` stamps each member with the current time, so its files never compare equal.
    Raises OSError, and ValueError for object arrays.
    """
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # else Windows and Unix write different bytes
            info.external_attr = 0o644 << 16
            info._compresslevel = _LEVEL  # type: ignore[attr-defined]  # no public way before Python 3.13
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def read_headers(path: Path, limit: int = MAX_ARRAY_BYTES) -> dict[str, ArrayHeader]:
    """Return what each array of the .npz at `path` declares to be; no array is read, nothing is unpickled.

    Raises BrokenCase: not a .npz, truncated, a member twice or not an array, pickled objects, an array over
    `limit` bytes, or a declared shape that does not fit the member's length (both are checked before memory
    is asked for, so a file of a few bytes cannot claim terabytes).
    """
    with _opened(path) as archive:
        return {header.name: header for header in _headers(path, archive, limit)}


def read_npz(path: Path, names: Collection[str], limit: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """Return those arrays of the .npz at `path` that are in `names`; others are not decompressed.

    Raises BrokenCase as `read_headers` does, and for contents that do not match their checksum.
    """
    arrays: dict[str, np.ndarray] = {}
    with _opened(path) as archive:
        for header in list(_headers(path, archive, limit)):
            if header.name in names:
                with archive.open(f"{header.name}.npy") as member:
                    arrays[header.name] = np.lib.format.read_array(member, allow_pickle=False)
                    member.read(1)  # reaching the end is what makes zipfile compare the checksum
    return arrays


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise BrokenCase(path, "is missing", "Put it back from a backup or export the case again") from error
    except _UNREADABLE as error:
        what = f"cannot be read as .npz ({type(error).__name__}: {error})"
        raise BrokenCase(path, what, "Export the case again, or delete the file") from error


def _headers(path: Path, archive: zipfile.ZipFile, limit: int) -> Iterator[ArrayHeader]:
    seen: set[str] = set()
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in seen:
            what = f"holds {info.filename!r}, which is not an array or is there twice"
            raise BrokenCase(path, what, "Do not use this file; export the case again")
        seen.add(name)
        with archive.open(info) as member:
            header, length = _header(name, member)
        _refuse_objects(path, header)
        if header.nbytes > limit:
            what = f"array {name!r} claims {header.nbytes} bytes, over the limit of {limit}"
            raise BrokenCase(
                path, what, "Export smaller planes or volumes, or delete the file if it is not yours"
            )
        if header.nbytes + length != info.file_size:
            what = f"array {name!r} of shape {header.shape} does not fit its {info.file_size} bytes"
            raise BrokenCase(path, what, "The file is damaged; export the case again")
        yield header


def _header(name: str, member: IO[bytes]) -> tuple[ArrayHeader, int]:
    version = np.lib.format.read_magic(member)
    if version not in _HEADER_READERS:
        raise ValueError(f"array {name!r} has .npy version {version}")
    shape, _, dtype = _HEADER_READERS[version](member)
    return ArrayHeader(name, tuple(shape), dtype), member.tell()


def _refuse_objects(path: Path, header: ArrayHeader) -> None:
    if header.dtype.hasobject:
        what = f"array {header.name!r} holds pickled Python objects, which could run code when read"
        raise BrokenCase(path, what, "It was not read. Delete the file unless you know where it comes from")
