"""What undo and redo of the labels mean for the objects: corrections, deletions and moves taken back, or done again.

The labels layer keeps the pixels' history and tells nobody what it undid. What each step meant is remembered here,
and found out again by looking at the pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
import numpy.typing as npt

from napari_medsam.document.compose import ReadRegion, still_corrected
from napari_medsam.document.objects import Document, ObjectRecord, PlaneKey
from napari_medsam.geometry import Bounds, Patch, union

ReadPlane = Callable[[PlaneKey, Bounds], npt.NDArray[np.integer]]
"""Reads labels: (plane, bounds) -> (h, w) integer labels."""

MOST_PLACES = 100  # napari keeps as many steps


@dataclass(frozen=True)
class Found:
    """What a look at the pixels changed: objects that are back in the document, and ids that are gone from it."""

    revived: tuple[ObjectRecord, ...] = ()
    vanished: tuple[int, ...] = ()


class History:
    """Remembers of one document what undo or redo in its labels may bring back."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._gone: dict[int, list[ObjectRecord]] = defaultdict(list)
        self._revived: set[int] = set()
        self._undone: dict[int, Patch] = {}
        self._places: dict[int, list[Bounds]] = defaultdict(list)

    def edited(self) -> None:
        """A new edit was made: what was undone before it can no longer be redone."""
        self._undone.clear()

    def drawn(self, record: ObjectRecord) -> None:
        """An object is about to be drawn anew; undo may put it back to where it is now."""
        self.edited()
        self._revived.discard(record.id)
        places = self._places[record.id]
        if record.extent is not None and record.extent not in places:
            places.append(record.extent)
            del places[:-MOST_PLACES]

    def deleted(self, record: ObjectRecord) -> None:
        """An object is about to leave the document; undo may bring its pixels back."""
        self.edited()
        if record.extent is not None:
            self._gone[record.id].append(record)

    def clear(self) -> None:
        """The labels' own history is gone, with their layer."""
        self._gone.clear()
        self._revived.clear()
        self._undone.clear()
        self._places.clear()

    def look(self, read: ReadPlane) -> Found:
        """Compare the document with the pixels and bring it in line with what undo or redo did."""
        vanished = [record.id for record in self._document if not self._stays(record, read)]
        for object_id in vanished:
            self._gone[object_id].append(self._document.remove(object_id))
        missing = [records for object_id, records in self._gone.items() if object_id not in self._document]
        revived = [record for records in missing if (record := _returned(records, read)) is not None]
        for record in revived:
            self._gone[record.id].remove(record)
            self._revived.add(record.id)
            self._document.restore(record)
        return Found(tuple(revived), tuple(vanished))

    def _stays(self, record: ObjectRecord, read: ReadPlane) -> bool:
        """Bring one object up to date; False when its pixels are gone and it went with them."""
        record = self._find_places(record, read)
        if not record.corrected:
            self._correct_again(record, read)
        elif not still_corrected(record, _reader(record, read)):
            if record.prediction is None and record.box is None:
                return False  # painted by hand, and the paint was undone
            assert record.before is not None
            self._undone[record.id] = record.before
            self._document.update(record.id, before=None)
        return record.id not in self._revived or _carries(record, read)

    def _correct_again(self, record: ObjectRecord, read: ReadPlane) -> None:
        before = self._undone.get(record.id)
        if before is not None and still_corrected(replace(record, before=before), _reader(record, read)):
            self._document.update(record.id, before=self._undone.pop(record.id))

    def _find_places(self, record: ObjectRecord, read: ReadPlane) -> ObjectRecord:
        """Widen the extent by earlier places that carry the object's label again."""
        extent = record.extent
        for place in self._places.get(record.id, ()):
            if (read(record.plane, place) == record.id).any():
                extent = union(extent, place)
        return record if extent == record.extent else self._document.update(record.id, extent=extent)


def _carries(record: ObjectRecord, read: ReadPlane) -> bool:
    return record.extent is not None and _count(record, read) > 0


def _returned(records: list[ObjectRecord], read: ReadPlane) -> ObjectRecord | None:
    """Tell which of the objects that had one label, one after the other, its pixels belong to; None: there are none.

    A label may be painted again after its object was deleted: the smallest extent that holds all pixels is right.
    """
    fitting = [record for record in records if _carries(record, read)]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    whole = reduce(union, (record.extent for record in fitting))
    assert whole is not None
    pixels = int(np.count_nonzero(read(fitting[0].plane, whole) == fitting[0].id))
    return min(fitting, key=lambda record: (_count(record, read) != pixels, _size(record)))


def _count(record: ObjectRecord, read: ReadPlane) -> int:
    assert record.extent is not None
    return int(np.count_nonzero(read(record.plane, record.extent) == record.id))


def _size(record: ObjectRecord) -> int:
    assert record.extent is not None
    r0, c0, r1, c1 = record.extent
    return (r1 - r0) * (c1 - c0)


def _reader(record: ObjectRecord, read: ReadPlane) -> ReadRegion:
    return partial(read, record.plane)
