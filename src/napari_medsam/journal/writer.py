"""Work is never lost: what is made of one image is written down as it changes, until it is exported.

One file for each image and process, to which lines are appended (`journal_format`). An append costs what has changed,
whatever else there is, and a process that is killed can only tear the line it was writing; a file for each object
would need two syncs an object, and could be torn between an object and those it covers. When most of a file is out of
date it is written anew, whole or not at all. A lock that ends with its process tells a journal that is being written
from one that was left (`leftover`), so two windows on one image write two files and never each other's.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_medsam.document.compose import redraw_bounds
from napari_medsam.document.objects import ObjectClass, ObjectRecord, PlaneKey
from napari_medsam.files import replacing
from napari_medsam.geometry import Bounds, Patch, intersection, union
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.journal.format import (
    Header,
    Json,
    Outline,
    Pixels,
    classes_entry,
    header_entry,
    key_of,
    object_entry,
    pixels_entry,
    to_line,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT_FOLDER = "v1"
SUFFIX = ".jsonl"
LOCK_SUFFIX = ".lock"
SLACK = 4 * 2**20  # bytes out of date before a journal is written anew, and as much again as is in use
STRIP = 2**22  # pixels of labels that are held at once

ReadPlane = Callable[[PlaneKey, Bounds], npt.NDArray[np.integer]]
Place = tuple[PlaneKey, int]
"""A label in a plane."""

News = dict[str, bytes | None]
"""Lines by what they are about; None where that is gone."""


@dataclass(frozen=True, eq=False)
class Change:
    """A document as it is now, and what of it may be new.

    records: all its objects. changed: ids whose record or pixels may have changed. repainted: look at every object's
    pixels. waiting: ids whose mask is still to come. given: ids that came with the image and that nobody touched, which
    need no export. outlines: what was drawn for an object where that is more than its box. strays: labels painted by
    hand where no object has them, and the bounds in which they changed. read: gives the labels of a region of a plane,
    None where there are no labels.
    """

    records: Mapping[int, ObjectRecord]
    classes: tuple[ObjectClass, ...]
    changed: frozenset[int] = frozenset()
    repainted: bool = False
    waiting: frozenset[int] = frozenset()
    given: frozenset[int] = frozenset()
    outlines: Mapping[int, Outline] = field(default_factory=dict)
    strays: Mapping[Place, Bounds] = field(default_factory=dict)
    read: ReadPlane | None = None


class Journal:
    """Writes what is made of one image; nothing is on disk before the first change.

    Not thread-safe: one thread at a time. A failed write raises OSError and is made good by the next that succeeds.
    """

    def __init__(self, folder: Path, image: ImageIdentity, channel_axis: int | None = None) -> None:
        self._folder = folder / FORMAT_FOLDER / image.key
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        self.path = self._folder / f"{name}{SUFFIX}"
        self._header = Header(image, channel_axis, time.time())
        self._lock: BaseFileLock | None = None
        self._stream: BinaryIO | None = None
        self._lines: dict[str, bytes] = {}  # what is true now, by what it is about
        self._planes: dict[int, PlaneKey] = {}  # where each object's pixels were written down
        self._seen: dict[int, Bounds] = {}  # and what was looked at for them
        self._strays: dict[Place, Bounds] = {}
        self._unsaved: set[int] = set()
        self._changes: dict[int, int] = {}
        self._size = 0

    @property
    def unsaved(self) -> frozenset[int]:
        """The objects that were not exported since they changed last."""
        return frozenset(self._unsaved)

    def record(self, change: Change) -> None:
        """Write down what is new, and have it reach the disk. Raises OSError."""
        news: dict[str, bytes | None] = {}
        self._note(classes_entry(change.classes), news)
        gone = [object_id for object_id in self._planes if object_id not in change.records]
        for object_id in change.changed:
            record = change.records.get(object_id)
            if record is not None:
                self._planes.setdefault(object_id, record.plane)
                waiting, outline = object_id in change.waiting, change.outlines.get(object_id)
                self._note(object_entry(record, waiting=waiting, outline=outline), news, object_id)
        if change.read is not None:
            for record in self._to_look_at(change, gone):
                self._note_pixels(record, change.read, news)
            for place, bounds in change.strays.items():
                self._note_stray(place, bounds, change.read, news)
        for object_id in gone:
            self._forget(object_id, news)
        if given := sorted(self._unsaved & change.given):
            self._unsaved.difference_update(given)
            news[""] = to_line({"saved": given})
        self._append(news)

    def mark(self) -> Mapping[int, int]:
        """How often each object changed until now: for `saved`."""
        return dict(self._changes)

    def saved(self, object_ids: Iterable[int], since: Mapping[int, int] | None = None) -> None:
        """Some objects were exported as they were at a `mark`: those that changed since do not count. OSError."""
        done = self._unsaved & set(object_ids)
        if since is not None:
            done = {number for number in done if since.get(number) == self._changes.get(number)}
        self._unsaved -= done
        if done:
            self._append({"": to_line({"saved": sorted(done)})})

    def close(self) -> None:
        """Let go of the journal: it stays for another time, unless all of it was exported."""
        self._give_up()
        if not self._unsaved:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        if self._lock is not None:
            release(self._lock, remove=not self._unsaved)
            self._lock = None

    # what is new --------------------------------------------------------------------------------------------

    def _note(self, entry: Json, news: News, object_id: int | None = None) -> None:
        key, line = key_of(entry), to_line(entry)
        if self._lines.get(key) != line:
            news[key] = line
            if object_id is not None:
                self._unsaved.add(object_id)
                self._changes[object_id] = self._changes.get(object_id, 0) + 1

    def _to_look_at(self, change: Change, gone: Iterable[int]) -> list[ObjectRecord]:
        """The objects whose pixels may have changed: also those under or over one that did."""
        if change.repainted:
            return list(change.records.values())
        touched: dict[PlaneKey, list[Bounds]] = {}
        for object_id in (*change.changed, *gone):
            record = change.records.get(object_id)
            if record is not None and (now := redraw_bounds(record)) is not None:
                touched.setdefault(record.plane, []).append(now)
            if object_id in self._seen:
                touched.setdefault(self._planes[object_id], []).append(self._seen[object_id])
        return [
            record
            for record in change.records.values()
            if record.id in change.changed or _meets(record, touched.get(record.plane, ()))
        ]

    def _note_pixels(self, record: ObjectRecord, read: ReadPlane, news: News) -> None:
        bounds, before = redraw_bounds(record), self._planes.get(record.id, record.plane)
        if before != record.plane:
            news[_pixels_key(before, record.id)] = None
        patch = _labelled(read, record.plane, record.id, bounds)
        self._planes[record.id] = record.plane
        if bounds is not None:
            self._seen[record.id] = bounds
        self._note(pixels_entry(Pixels(record.plane, record.id, patch)), news, record.id)

    def _note_stray(self, place: Place, bounds: Bounds, read: ReadPlane, news: News) -> None:
        whole = union(self._strays.get(place), bounds)
        assert whole is not None
        self._strays[place] = whole
        patch = _labelled(read, *place, whole)
        self._note(pixels_entry(Pixels(*place, patch)), news, place[1])

    def _forget(self, object_id: int, news: News) -> None:
        news[f"o{object_id}"] = None
        news[_pixels_key(self._planes.pop(object_id), object_id)] = None
        self._seen.pop(object_id, None)
        self._unsaved.discard(object_id)

    # the file -----------------------------------------------------------------------------------------------

    def _append(self, news: News) -> None:
        """Add lines; None takes what is known under a key away. Raises OSError."""
        for key, line in news.items():
            if line is None:
                self._lines.pop(key, None)
            elif key:
                self._lines[key] = line
        if self._stream is None:
            if self._planes or self._strays:
                self._write_anew()
            return
        fresh = b"".join(to_line({"gone": key}) if line is None else line for key, line in news.items())
        if self._size + len(fresh) > 2 * sum(map(len, self._lines.values())) + SLACK:
            self._write_anew()
            return
        if not fresh:
            return
        try:
            self._stream.write(fresh)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError:
            self._give_up()  # it may be torn: the next time it is written whole
            raise
        self._size += len(fresh)

    def _write_anew(self) -> None:
        self._take_lock()
        self._give_up()
        saved = [object_id for object_id in self._planes if object_id not in self._unsaved]
        lines = [to_line(header_entry(self._header)), *self._lines.values(), to_line({"saved": saved})]
        with replacing(self.path) as stream:
            stream.writelines(lines)
        self._stream = open(self.path, "ab")  # noqa: SIM115 - as long as the journal is
        self._size = sum(map(len, lines))

    def _give_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()

    def _take_lock(self) -> None:
        if self._lock is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_of(self.path)
            if self._lock is None:
                raise OSError(f"{self.path} is in use")


# locks --------------------------------------------------------------------------------------------------------


def lock_of(path: Path) -> BaseFileLock | None:
    """Take the lock of a journal; None when a living process has it. It ends with its process, however that ends.

    Raises OSError.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(LOCK_SUFFIX), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def release(lock: BaseFileLock, *, remove: bool) -> None:
    """Let a lock go; remove: its file too, and the folder if that was all in it."""
    path = Path(lock.lock_file)
    if (
        remove and os.name != "nt"
    ):  # while it is ours: nobody can take a file for the lock that is about to go
        with suppress(OSError):
            path.unlink(missing_ok=True)
    lock.release()
    if remove:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()


# masks --------------------------------------------------------------------------------------------------------


def _labelled(read: ReadPlane, plane: PlaneKey, label: int, bounds: Bounds | None) -> Patch:
    """Where a region carries a label, cropped; read in strips, so that no more is held than there must be."""
    if bounds is None:
        return Patch(0, 0, np.zeros((0, 0), dtype=bool))
    r0, c0, r1, c1 = bounds
    mask = np.zeros((max(r1 - r0, 0), max(c1 - c0, 0)), dtype=bool)
    step = max(1, STRIP // max(mask.shape[1], 1))
    for start in range(0, mask.shape[0], step):
        stop = min(start + step, mask.shape[0])
        part = read(plane, (r0 + start, c0, r0 + stop, c1)) == label
        mask[start : start + part.shape[0], : part.shape[1]] = part
    return Patch(r0, c0, mask).tight()


def _meets(record: ObjectRecord, others: Iterable[Bounds]) -> bool:
    own = redraw_bounds(record)
    if own is None:
        return False
    return any(r0 < r1 and c0 < c1 for r0, c0, r1, c1 in (intersection(own, other) for other in others))


def _pixels_key(plane: PlaneKey, label: int) -> str:
    empty = Patch(0, 0, np.zeros((0, 0), dtype=bool))
    return key_of(pixels_entry(Pixels(plane, label, empty)))
