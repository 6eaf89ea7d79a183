"""Work is never lost: what is made of one image is written down as it changes, until it is exported.

One file for each image and process, to which lines are appended (`format`). An append costs what has changed,
whatever else there is, and a process that is killed can only tear the line it was writing; a file for each object
would need two syncs an object, and could be torn between an object and those it covers. When most of a file is out of
date it is written anew, whole or not at all. A lock that ends with its process tells a journal that is being written
from one that was left (`recovery`), so two windows on one image write two files and never each other's.
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

from napari_medsam.document.compose import redraw_box
from napari_medsam.document.objects import ObjectClass, ObjectRecord, Part, PartKey, PlaneKey
from napari_medsam.files import replacing
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.journal.format import (
    ClassesLine,
    GoneLine,
    Header,
    Outline,
    PartLine,
    Pixels,
    PixelsLine,
    SavedLine,
    part_line,
    part_line_key,
    pixels_line_key,
    to_line,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT_FOLDER = "v1"  # of how the files lie; what stands in them has its own version
SUFFIX = ".jsonl"
LOCK_SUFFIX = ".lock"
SLACK = 4 * 2**20  # bytes out of date before a journal is written anew, and as much again as is in use
STRIP = 2**22  # pixels of labels that are held at once

ReadPlane = Callable[[PlaneKey, Box], npt.NDArray[np.integer]]
News = dict[str, bytes | None]
"""Lines by what they are about; None where that is gone."""


@dataclass(frozen=True, eq=False)
class DocumentState:
    """A document as it is now, and what of it may be new.

    objects: all that it has. changed: parts that may have another record or other pixels, or are gone. repainted:
    look at every part's pixels. waiting: parts whose mask is still to come. given: parts that came with the image and
    that nobody touched, which need no export. outlines: what was drawn for a part where that is more than its box.
    read: gives the labels of a region of a plane, None where there are no labels.
    """

    objects: Mapping[int, ObjectRecord]
    classes: tuple[ObjectClass, ...]
    changed: frozenset[PartKey] = frozenset()
    repainted: bool = False
    waiting: frozenset[PartKey] = frozenset()
    given: frozenset[PartKey] = frozenset()
    outlines: Mapping[PartKey, Outline] = field(default_factory=dict)
    read: ReadPlane | None = None

    @property
    def parts(self) -> dict[PartKey, Part]:
        return {part.key: part for record in self.objects.values() for part in record.parts.values()}


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
        self._seen: dict[PartKey, Box | None] = {}  # the parts in it, and what was looked at for their pixels
        self._unsaved: set[PartKey] = set()
        self._changes: dict[PartKey, int] = {}
        self._size = 0

    @property
    def unsaved(self) -> frozenset[PartKey]:
        """The parts that were not exported since they changed last."""
        return frozenset(self._unsaved)

    def record(self, state: DocumentState) -> None:
        """Write down what is new, and have it reach the disk. Raises OSError."""
        news: News = {}
        parts = state.parts
        self._note(ClassesLine(state.classes), news)
        gone = [key for key in self._seen if key not in parts]
        for key in (key for key in parts if key in state.changed):
            self._seen.setdefault(key, None)
            class_id, waiting = state.objects[key[0]].class_id, key in state.waiting
            line = part_line(parts[key], class_id, waiting=waiting, outline=state.outlines.get(key))
            self._note(line, news, key)
        if state.read is not None:
            for part in self._to_look_at(state, parts, gone):
                self._note_pixels(part, state.read, news)
        for key in gone:
            self._forget(key, news)
        if given := self._unsaved & state.given:
            self._unsaved -= given
            news[""] = _saved_line(given)
        self._append(news)

    def mark(self) -> Mapping[PartKey, int]:
        """How often each part changed until now: for `saved`."""
        return dict(self._changes)

    def saved(self, parts: Iterable[PartKey], since: Mapping[PartKey, int] | None = None) -> None:
        """Some parts were exported as they were at a `mark`: those that changed since do not count. OSError."""
        done = self._unsaved & set(parts)
        if since is not None:
            done = {key for key in done if since.get(key) == self._changes.get(key)}
        self._unsaved -= done
        if done:
            self._append({"": _saved_line(done)})

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

    def _note(
        self, entry: PartLine | PixelsLine | ClassesLine, news: News, changed: PartKey | None = None
    ) -> None:
        line = to_line(entry)
        if self._lines.get(entry.key) != line:
            news[entry.key] = line
            if changed is not None:
                self._unsaved.add(changed)
                self._changes[changed] = self._changes.get(changed, 0) + 1

    def _to_look_at(
        self, state: DocumentState, parts: Mapping[PartKey, Part], gone: Iterable[PartKey]
    ) -> list[Part]:
        """The parts whose pixels may have changed: also those under or over one that did."""
        if state.repainted:
            return list(parts.values())
        touched: dict[PlaneKey, list[Box]] = {}
        for key in (*state.changed, *gone):
            now = redraw_box(parts[key]) if key in parts else None
            touched.setdefault(key[1], []).extend(
                one for one in (now, self._seen.get(key)) if one is not None
            )
        return [
            part
            for key, part in parts.items()
            if key in state.changed or _meets(part, touched.get(part.plane, ()))
        ]

    def _note_pixels(self, part: Part, read: ReadPlane, news: News) -> None:
        box = redraw_box(part)
        patch = _labelled(read, part.plane, part.object_id, box)
        self._seen[part.key] = box
        self._note(PixelsLine(Pixels(part.plane, part.object_id, patch)), news, part.key)

    def _forget(self, key: PartKey, news: News) -> None:
        news[part_line_key(*key)] = news[pixels_line_key(*key)] = None
        del self._seen[key]
        self._unsaved.discard(key)

    # the file -----------------------------------------------------------------------------------------------

    def _append(self, news: News) -> None:
        """Add lines; None takes what is known under a key away. Raises OSError."""
        for key, line in news.items():
            if line is None:
                self._lines.pop(key, None)
            elif key:
                self._lines[key] = line
        if self._stream is None:
            if self._seen:
                self._write_anew()
            return
        fresh = b"".join(to_line(GoneLine(key)) if line is None else line for key, line in news.items())
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
        saved = self._seen.keys() - self._unsaved
        lines = [to_line(self._header), *self._lines.values(), _saved_line(saved)]
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


def _labelled(read: ReadPlane, plane: PlaneKey, label: int, box: Box | None) -> Patch:
    """Where a region carries a label, cropped; read in strips, so that no more is held than there must be."""
    if box is None:
        return Patch(0, 0, np.zeros((0, 0), dtype=bool))
    mask = np.zeros(box.shape, dtype=bool)
    step = max(1, STRIP // max(mask.shape[1], 1))
    for start in range(0, mask.shape[0], step):
        strip = Box(box.r0 + start, box.c0, min(box.r0 + start + step, box.r1), box.c1)
        part = read(plane, strip) == label
        mask[start : start + part.shape[0], : part.shape[1]] = part
    return Patch(*box.corner, mask).tight()


def _meets(part: Part, others: Iterable[Box]) -> bool:
    own = redraw_box(part)
    return own is not None and any(own.meets(other) for other in others)


def _saved_line(parts: Iterable[PartKey]) -> bytes:
    return to_line(SavedLine(tuple(parts)))
