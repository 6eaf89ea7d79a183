"""Journals that were left: by a process that was killed, or one that ended before all was exported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medsam.document.objects import ObjectClass, ObjectRecord
from napari_medsam.files import TEMPORARY_SUFFIX
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.journal.format import (
    LONGEST_LINE,
    Header,
    Json,
    Outline,
    Pixels,
    from_line,
    key_of,
    read_classes,
    read_header,
    read_object,
    read_outline,
    read_pixels,
    whole_number,
)
from napari_medsam.journal.writer import FORMAT_FOLDER, LOCK_SUFFIX, SUFFIX, lock_of, release

if TYPE_CHECKING:
    from filelock import BaseFileLock

MOST_BYTES = 2 * 2**30
KEEP_DAYS = 30
STALE_S = 86400
_FOREIGN = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a journal holds: all that was made of an image.

    outlines: what was drawn where that is more than a box. waiting: objects whose mask was still to come. unsaved:
    those not exported. pixels: what the labels showed. broken: lines that could not be read, the torn last one
    included.
    """

    header: Header
    classes: tuple[ObjectClass, ...]
    records: tuple[ObjectRecord, ...]
    outlines: Mapping[int, Outline]
    pixels: tuple[Pixels, ...]
    waiting: frozenset[int]
    unsaved: frozenset[int]
    broken: int


class Leftover:
    """A journal that nobody writes any more; its lock is held, so that no other window offers it too.

    objects: how many are in it; unsaved: how many of them were not exported. broken: lines that cannot be read. when:
    its last change, seconds since the epoch.
    """

    def __init__(self, path: Path, lock: BaseFileLock, lines: _Lines, when: float) -> None:
        self.path = path
        self.when = when
        self.header = lines.header
        self.objects = len(lines.objects)
        self.unsaved = len(lines.unsaved)
        self.broken = lines.broken
        self._lock: BaseFileLock | None = lock

    def read(self) -> Recovered:
        """All that can be read of it. Raises OSError, or ValueError should it be no journal any more."""
        lines = _read_lines(self.path)
        shape, broken = lines.header.image.shape, lines.broken
        records: list[ObjectRecord] = []
        outlines: dict[int, Outline] = {}
        pixels: list[Pixels] = []
        waiting: set[int] = set()
        classes: tuple[ObjectClass, ...] = ()
        for entry in lines.entries.values():
            try:
                if "object" in entry:
                    record, waits = read_object(entry, shape)
                    if (outline := read_outline(entry)) is not None:
                        outlines[record.id] = outline
                    records.append(record)
                    waiting.update({record.id} if waits else ())
                elif "pixels" in entry:
                    pixels.append(read_pixels(entry, shape))
                else:
                    classes = read_classes(entry)
            except _FOREIGN:
                broken += 1
        records.sort(key=lambda record: record.id)
        return Recovered(
            header=lines.header,
            classes=classes,
            records=tuple(records),
            outlines=outlines,
            pixels=tuple(pixels),
            waiting=frozenset(waiting),
            unsaved=lines.unsaved,
            broken=broken,
        )

    def remove(self) -> None:
        """Delete it: it was restored, or is not wanted."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._let_go(remove=True)

    def leave(self) -> None:
        """Let go of it; it is found again."""
        self._let_go(remove=False)

    def _let_go(self, *, remove: bool) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            release(lock, remove=remove)


def find_leftovers(folder: Path, image: ImageIdentity) -> list[Leftover]:
    """The journals of an image that hold something not exported, latest first; the others are removed.

    Files that are no journals, and journals of other images or of living processes, are passed over.
    """
    found = []
    for path in _listed(folder / FORMAT_FOLDER / image.key):
        leftover = _taken(path)
        if leftover is None:
            continue
        if not leftover.unsaved and not leftover.broken:
            leftover.remove()
        elif leftover.unsaved and leftover.header.image.matches(image):
            found.append(leftover)
        else:
            leftover.leave()
    return sorted(found, key=lambda leftover: leftover.when, reverse=True)


def prune(folder: Path, *, days: float = KEEP_DAYS, most_bytes: int = MOST_BYTES) -> int:
    """Delete journals that nobody came back to for so many days, and the oldest while all take more than that.

    Gives how many. Those of living processes stay.
    """
    places: list[Path] = []
    with suppress(OSError):
        places = [place for place in (folder / FORMAT_FOLDER).iterdir() if place.is_dir()]
    for place in places:
        _sweep(place)
    return _prune([path for place in places for path in _listed(place)], days, most_bytes)


def _prune(paths: list[Path], days: float, most_bytes: int) -> int:
    files = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total, oldest, removed = sum(size for _, size, _ in files), time.time() - days * 86400, 0
    for changed, size, path in sorted(files):
        if changed >= oldest and total <= most_bytes:
            break
        lock = _lock_or_none(path)
        if lock is None:
            continue
        with suppress(OSError):
            path.unlink()
            removed += 1
            total -= size
        release(lock, remove=True)
    return removed


def _sweep(place: Path) -> None:
    """Take away what killed writers left beside their journals."""
    with suppress(OSError):
        for path in [*place.glob(f"*{LOCK_SUFFIX}"), *place.glob(f".*{TEMPORARY_SUFFIX}")]:
            of_none = not path.with_suffix(SUFFIX).exists()
            if of_none and time.time() - path.stat().st_mtime > STALE_S:
                path.unlink(missing_ok=True)
        place.rmdir()  # where it is empty now


@dataclass(frozen=True, eq=False)
class _Lines:
    """The lines of a journal that still count, not yet taken apart."""

    header: Header
    entries: dict[str, Json]
    unsaved: frozenset[int]
    broken: int

    @property
    def objects(self) -> list[int]:
        return [entry["object"] for entry in self.entries.values() if "object" in entry]


def _taken(path: Path) -> Leftover | None:
    """A journal with its lock; None for one that is in use, gone, or none at all."""
    lock = _lock_or_none(path)
    if lock is None:
        return None
    try:
        return Leftover(path, lock, _read_lines(path), path.stat().st_mtime)
    except (OSError, *_FOREIGN):
        release(lock, remove=True)
        return None


def _read_lines(path: Path) -> _Lines:
    """Raises OSError, or ValueError and its like where the first line is no header."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is too large for a journal")
    with open(path, "rb") as stream:
        header = read_header(from_line(stream.readline(2**20)))
        entries: dict[str, Json] = {}
        unsaved: set[int] = set()
        broken = 0
        while line := stream.readline(LONGEST_LINE):
            try:
                _take(from_line(line), entries, unsaved)
            except _FOREIGN:
                broken += 1
    there = {entry["object"] for entry in entries.values() if "object" in entry}
    return _Lines(header, entries, frozenset(unsaved & there), broken)


def _take(entry: Json, entries: dict[str, Json], unsaved: set[int]) -> None:
    """Bring what is known in line with one more line."""
    if "saved" in entry:
        unsaved.difference_update(entry["saved"])
    elif "gone" in entry:
        entries.pop(entry["gone"], None)
    else:
        key = key_of(entry)
        number = entry.get("object", entry.get("pixels"))
        if number is not None:
            unsaved.add(whole_number(number, 1))
        entries[key] = entry


def _lock_or_none(path: Path) -> BaseFileLock | None:
    with suppress(OSError):
        return lock_of(path)
    return None


def _listed(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_file())
