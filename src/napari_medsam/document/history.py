"""What undo and redo of the labels mean for the objects: corrections, deletions and moves taken back, or done again.

The labels layer keeps the pixels' history and tells nobody what it undid. What each step meant is remembered here, for
each part of an object, and found out again by looking at the pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
import numpy.typing as npt

from napari_medsam.document.compose import ReadRegion, still_corrected
from napari_medsam.document.objects import Document, ObjectRecord, Part, PartKey, PlaneKey
from napari_medsam.geometry import Box, Patch, union

ReadPlane = Callable[[PlaneKey, Box], npt.NDArray[np.integer]]
"""Reads labels: (plane, box) -> (h, w) integer labels."""

MOST_PLACES = 100  # napari keeps as many steps


@dataclass(frozen=True)
class Found:
    """What a look at the pixels changed: parts that are back in the document, and those that are gone from it."""

    revived: tuple[Part, ...] = ()
    vanished: tuple[PartKey, ...] = ()


class History:
    """Remembers of one document what undo or redo in its labels may bring back."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._gone: dict[PartKey, dict[Part, int]] = defaultdict(dict)  # with the class that the object had
        self._revived: set[PartKey] = set()
        self._undone: dict[PartKey, Patch] = {}
        self._places: dict[PartKey, list[Box]] = defaultdict(list)

    def edited(self) -> None:
        """A new edit was made: what was undone before it can no longer be redone."""
        self._undone.clear()

    def drawn(self, part: Part) -> None:
        """A part is about to be drawn anew; undo may put it back to where it is now."""
        self.edited()
        self._revived.discard(part.key)
        places = self._places[part.key]
        if part.extent is not None and part.extent not in places:
            places.append(part.extent)
            del places[:-MOST_PLACES]

    def deleted(self, part: Part) -> None:
        """A part is about to leave the document; undo may bring its pixels back."""
        self.edited()
        if part.extent is not None:
            self._keep(part)

    def clear(self) -> None:
        """The labels' own history is gone, with their layer."""
        self._gone.clear()
        self._revived.clear()
        self._undone.clear()
        self._places.clear()

    def look(self, read: ReadPlane) -> Found:
        """Compare the document with the pixels and bring it in line with what undo or redo did."""
        with self._document.batch():
            vanished = [part for part in self._document.parts() if not self._stays(part, read)]
            for part in vanished:
                self._keep(self._document.part(*part.key))
                self._document.remove_part(*part.key)
            missing = [parts for key, parts in self._gone.items() if self._document.get_part(*key) is None]
            revived = [back for parts in missing if (back := _returned(parts, read)) is not None]
            for part in revived:
                self._revive(part)
        return Found(tuple(revived), tuple(part.key for part in vanished))

    def _keep(self, part: Part) -> None:
        self._gone[part.key][part] = self._document[part.object_id].class_id

    def _revive(self, part: Part) -> None:
        class_id = self._gone[part.key].pop(part)
        self._revived.add(part.key)
        if part.object_id in self._document:
            self._document.add_part(part)
        else:
            self._document.restore(ObjectRecord(part.object_id, class_id, {part.plane: part}))

    def _stays(self, part: Part, read: ReadPlane) -> bool:
        """Bring one part up to date; False when its pixels are gone and it went with them."""
        part = self._find_places(part, read)
        if not part.corrected:
            self._correct_again(part, read)
        elif not still_corrected(part, _reader(part, read)):
            if part.prediction is None and part.box is None:
                return False  # painted by hand, and the paint was undone
            assert part.before is not None
            self._undone[part.key] = part.before
            self._document.update_part(*part.key, before=None)
        return part.key not in self._revived or _carries(part, read)

    def _correct_again(self, part: Part, read: ReadPlane) -> None:
        before = self._undone.get(part.key)
        if before is not None and still_corrected(replace(part, before=before), _reader(part, read)):
            self._document.update_part(*part.key, before=self._undone.pop(part.key))

    def _find_places(self, part: Part, read: ReadPlane) -> Part:
        """Widen the extent by earlier places that carry the object's label again."""
        extent = part.extent
        for place in self._places.get(part.key, ()):
            if (read(part.plane, place) == part.object_id).any():
                extent = union(extent, place)
        return part if extent == part.extent else self._document.update_part(*part.key, extent=extent)


def _carries(part: Part, read: ReadPlane) -> bool:
    return part.extent is not None and _count(part, read) > 0


def _returned(parts: Iterable[Part], read: ReadPlane) -> Part | None:
    """Tell which of the parts that had one label, one after the other, its pixels belong to; None: there are none.

    A label may be painted again after its object was deleted: the smallest extent that holds all pixels is right.
    """
    fitting = [part for part in parts if _carries(part, read)]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    whole = reduce(union, (part.extent for part in fitting))
    assert whole is not None
    pixels = int(np.count_nonzero(read(fitting[0].plane, whole) == fitting[0].object_id))
    return min(fitting, key=lambda part: (_count(part, read) != pixels, _size(part)))


def _count(part: Part, read: ReadPlane) -> int:
    assert part.extent is not None
    return int(np.count_nonzero(read(part.plane, part.extent) == part.object_id))


def _size(part: Part) -> float:
    assert part.extent is not None
    return part.extent.area


def _reader(part: Part, read: ReadPlane) -> ReadRegion:
    return partial(read, part.plane)
