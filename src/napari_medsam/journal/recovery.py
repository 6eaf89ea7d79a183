"""Journals that hold unsaved work: by a process that was killed, or one that ended before all was exported."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.document.objects import ObjectClass, ObjectRecord, Part, PartKey, PlaneKey
from napari_medsam.files import TEMPORARY_SUFFIX
from napari_medsam.geometry import Patch
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.journal.format import (
    LONGEST_LINE,
    ClassesLine,
    Header,
    Mention,
    Outline,
    PartLine,
    Pixels,
    opened,
    read_classes,
    read_part,
    read_pixels,
)
from napari_medsam.journal.version_1 import upgraded
from napari_medsam.journal.writer import FORMAT_FOLDER, LOCK_SUFFIX, SUFFIX, lock_of, release
from napari_medsam.records import from_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

MOST_BYTES = 2 * 2**30
KEEP_DAYS = 30
STALE_S = 86400
_FOREIGN = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a journal holds: all that was made of an image.

    outlines: what was drawn where that is more than a box. waiting: parts whose mask was still to come. unsaved:
    those not exported. pixels: what the labels showed. broken: lines that could not be read, the torn last one
    included.
    """

    header: Header
    classes: tuple[ObjectClass, ...]
    objects: tuple[ObjectRecord, ...]
    outlines: Mapping[PartKey, Outline]
    pixels: tuple[Pixels, ...]
    waiting: frozenset[PartKey]
    unsaved: frozenset[PartKey]
    broken: int


class UnsavedJournal:
    """A journal that nobody writes any more; its lock is held, so that no other window offers it too.

    objects: how many are in it; unsaved: how many of them were not exported. broken: lines that cannot be read. when:
    its last change, seconds since the epoch.
    """

    def __init__(self, path: Path, lock: BaseFileLock, lines: _Lines, when: float) -> None:
        self.path = path
        self.when = when
        self.header = lines.header
        self.objects = len(lines.objects)
        self.unsaved = len({object_id for object_id, _ in lines.unsaved})
        self.broken = lines.broken
        self._lock: BaseFileLock | None = lock

    def read(self) -> Recovered:
        """All that can be read of it. Raises OSError, or ValueError should it be no journal any more."""
        lines = _read_lines(self.path)
        shape, broken = lines.header.image.shape, lines.broken
        parts: dict[PartKey, PartLine] = {}
        pixels: list[Pixels] = []
        classes: tuple[ObjectClass, ...] = ()
        for key, entry in lines.entries.items():
            try:
                if key == ClassesLine.key:
                    classes = read_classes(entry.text)
                elif entry.of_part:
                    found = read_part(entry.text, shape)
                    parts[found.part.key] = found
                else:
                    pixels.append(read_pixels(entry.text, shape))
            except _FOREIGN:
                broken += 1
        return Recovered(
            header=lines.header,
            classes=classes,
            objects=_objects(parts.values(), pixels),
            outlines={key: line.outline for key, line in parts.items() if line.outline is not None},
            pixels=tuple(pixels),
            waiting=frozenset(key for key, line in parts.items() if line.waiting),
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


def _objects(lines: Iterable[PartLine], pixels: Iterable[Pixels]) -> tuple[ObjectRecord, ...]:
    """The objects whose parts the lines are, by their ids; of two classes the one written last holds.

    Version 1 knew paint with an object's label on another plane as pixels only: that is a painted part of it.
    """
    parts: dict[int, dict[PlaneKey, Part]] = {}
    classes: dict[int, int] = {}
    for line in lines:
        parts.setdefault(line.part.object_id, {})[line.part.plane] = line.part
        classes[line.part.object_id] = line.class_
    for found in pixels:
        own = parts.get(found.label)
        if own is not None and found.plane not in own and found.patch.mask.any():
            extent = found.patch.box
            before = Patch(*extent.corner, np.zeros((0, 0), dtype=bool))
            own[found.plane] = Part(found.label, found.plane, before=before, extent=extent)
    return tuple(ObjectRecord(number, classes[number], parts[number]) for number in sorted(parts))


def find_unsaved(folder: Path, image: ImageIdentity) -> list[UnsavedJournal]:
    """The journals of an image that hold something not exported, latest first; the others are removed.

    Files that are no journals, and journals of other images or of living processes, are passed over.
    """
    found = []
    for path in _listed(folder / FORMAT_FOLDER / image.key):
        journal = _taken(path)
        if journal is None:
            continue
        if not journal.unsaved and not journal.broken:
            journal.remove()
        elif journal.unsaved and journal.header.image.matches(image):
            found.append(journal)
        else:
            journal.leave()
    return sorted(found, key=lambda journal: journal.when, reverse=True)


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


@dataclass(frozen=True)
class _Entry:
    """The JSON of a line that still counts, with masks still packed; what it is about, None for the classes."""

    subject: PartKey | None
    of_part: bool
    text: bytes


@dataclass(eq=False)
class _Lines:
    """The lines of a journal that still count, not yet taken apart."""

    header: Header
    entries: dict[str, _Entry] = field(default_factory=dict)
    changed: set[PartKey] = field(default_factory=set)  # since they were exported
    broken: int = 0

    @property
    def objects(self) -> frozenset[int]:
        of_parts = (entry.subject for entry in self.entries.values() if entry.of_part)
        return frozenset(subject[0] for subject in of_parts if subject is not None)

    @property
    def unsaved(self) -> frozenset[PartKey]:
        there = {entry.subject for entry in self.entries.values()}
        objects = self.objects
        return frozenset(part for part in self.changed & there if part[0] in objects)

    def take(self, line: bytes) -> None:
        """Bring what is known in line with one more line. Raises ValueError and its like."""
        text, old = opened(line), self.header.version == 1
        if old:
            text = upgraded(text)
        said = from_json(Mention, text)
        if said.saved is not None:
            gone = set(said.saved)
            self.changed = {part for part in self.changed if not {part, (part[0], None)} & gone}
        elif said.gone is not None:
            self.entries.pop(said.gone, None)
        else:
            key, of_part = said.key, said.part is not None
            if old and of_part:
                key = key.partition("@")[0]  # an object had one plane: on another it has moved
            if said.subject is not None:
                self.changed.add(said.subject)
            self.entries.pop(key, None)  # the order is that of the latest lines
            self.entries[key] = _Entry(said.subject, of_part, text)


def _taken(path: Path) -> UnsavedJournal | None:
    """A journal with its lock; None for one that is in use, gone, or none at all."""
    lock = _lock_or_none(path)
    if lock is None:
        return None
    try:
        return UnsavedJournal(path, lock, _read_lines(path), path.stat().st_mtime)
    except (OSError, *_FOREIGN):
        release(lock, remove=True)
        return None


def _read_lines(path: Path) -> _Lines:
    """Raises OSError, or ValueError where the first line is no header."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is too large for a journal")
    with open(path, "rb") as stream:
        lines = _Lines(from_json(Header, opened(stream.readline(2**20))))
        while line := stream.readline(LONGEST_LINE):
            try:
                lines.take(line)
            except _FOREIGN:
                lines.broken += 1
    return lines


def _lock_or_none(path: Path) -> BaseFileLock | None:
    with suppress(OSError):
        return lock_of(path)
    return None


def _listed(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_file())
