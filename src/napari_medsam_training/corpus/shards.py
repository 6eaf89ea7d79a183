"""Work cut into shards that stay the same when cases are added, each with a record that says it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from napari_medsam.files import replacing
from napari_medsam.records import from_json, plain

Item = TypeVar("Item")
_LONGEST = 4  # times the usual size


def cut(items: Iterable[Item], key: Callable[[Item], str], size: int) -> Iterator[tuple[Item, ...]]:
    """Cut sorted items into shards of `size` on average, of four times that at most.

    A shard ends where the hash of a key says so, not at a count: an item that is added changes its own shard and
    leaves the others as they are.
    """
    shard: list[Item] = []
    for item in items:
        shard.append(item)
        ends = int(hashlib.sha256(key(item).encode()).hexdigest()[:12], 16) % size == 0
        if ends or len(shard) >= _LONGEST * size:
            yield tuple(shard)
            shard = []
    if shard:
        yield tuple(shard)


def shard_name(first: str, *parts: object) -> str:
    """A file name for a shard that depends on all that goes into it: other files or settings, another name."""
    clean = "".join(c if c.isalnum() else "-" for c in first)[-40:].strip("-")
    return f"{clean}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


def write_lines(path: Path, rows: Iterable[object]) -> None:
    """Write dataclasses as lines of JSON, the whole file or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        for row in rows:
            stream.write(json.dumps(plain(row), sort_keys=True, allow_nan=False).encode() + b"\n")


def read_lines(path: Path, type_: type[Item]) -> Iterator[Item]:
    """The rows of such a file, one at a time."""
    with path.open("rb") as stream:
        for line in stream:
            yield from_json(type_, line)
