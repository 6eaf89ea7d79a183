"""A JSON file that says its format and version, read without trusting it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from napari_medsam.curation.problem import BrokenCase, NewerFormat
from napari_medsam.records import from_json

MAX_JSON_BYTES = 256 * 2**20
_AGAIN = "Export again, or delete the file"

T = TypeVar("T")


@dataclass(frozen=True)
class _Head:
    format: str
    version: int


def read_record(path: Path, type_: type[T], kind: str, version: int) -> T:
    """The record in the file at `path`, which must say it is of format `kind` and at most of `version`.

    Raises BrokenCase as `read_text` does, and naming the field that is missing or wrong.
    """
    return parsed(path, type_, read_text(path, kind, version))


def read_text(path: Path, kind: str, version: int) -> bytes:
    """The JSON text at `path`. Raises BrokenCase: missing, too long, not JSON, another format, a newer version."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BrokenCase(path, f"is longer than {MAX_JSON_BYTES} bytes", "Delete it unless you wrote it")
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise BrokenCase(path, "is missing", "Put it back from a backup or export the case again") from error
    except OSError as error:
        raise BrokenCase(path, f"cannot be read ({error})", _AGAIN) from error
    head = parsed(path, _Head, text)
    if head.format != kind:
        raise BrokenCase(path, f"is not a {kind!r} file", _AGAIN)
    if head.version > version:
        raise NewerFormat(path, f"is of version {head.version}", "Update napari-medsam to read it")
    return text


def parsed(path: Path, type_: type[T], text: bytes) -> T:
    """The record that a text read from `path` says. Raises BrokenCase."""
    try:
        return from_json(type_, text)
    except ValueError as error:
        raise BrokenCase(path, f"cannot be read ({error})", _AGAIN) from error
