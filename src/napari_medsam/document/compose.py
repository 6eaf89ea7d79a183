"""How objects share the pixels of one plane: what a changed object does to a region of the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import ObjectRecord
from napari_medsam.document.overlap import Policy, paste
from napari_medsam.geometry import Bounds, Patch, intersection, union

ReadRegion = Callable[[Bounds], npt.NDArray[np.integer]]
"""Reads the labels of one plane: bounds -> (h, w) integer labels."""


def redraw(
    region: npt.NDArray[np.integer],
    bounds: Bounds,
    record: ObjectRecord,
    others: Iterable[ObjectRecord],
    policy: Policy,
    *,
    erase: bool = False,
) -> npt.NDArray[np.integer]:
    """Return ``region`` as it looks once ``record`` is drawn anew.

    ``region`` holds the labels of ``bounds`` (h, w). The object's old pixels outside its prediction are given back to
    the predictions they hid, latest first, or to the background; what it held and still claims stays its own. Then
    the prediction is pasted under ``policy``. With ``erase`` nothing is claimed or pasted. The input is left alone;
    the result is int64, which holds every id, whatever the layer's type.
    """
    drawn = region.astype(np.int64)
    rest = [other for other in others if other.id != record.id]
    patch = None if erase else record.patch
    claimed = np.zeros(drawn.shape, dtype=bool) if patch is None else patch.within(bounds)
    freed = (region == record.id) & ~claimed
    drawn[freed] = 0
    if freed.any():
        _give_back(drawn, freed, bounds, rest)
    if claimed.any():
        protected = _protected(drawn, rest) if policy == "corrected" else ()
        drawn[paste(drawn, claimed, record.id, policy, protected)] = record.id
    return drawn


def redraw_bounds(record: ObjectRecord) -> Bounds | None:
    """Return the bounds that ``redraw`` must see: old pixels and new prediction; None if there are neither."""
    patch = record.patch
    return union(record.extent, patch.bounds if patch is not None and patch.mask.size else None)


def _give_back(
    drawn: npt.NDArray[np.integer],
    freed: npt.NDArray[np.bool_],
    bounds: Bounds,
    others: list[ObjectRecord],
) -> None:
    for other in sorted(others, key=lambda entry: entry.turn, reverse=True):
        patch = other.patch
        if patch is None or other.corrected or _empty(intersection(bounds, patch.bounds)):
            continue
        hidden = patch.within(bounds) & freed & (drawn == 0)
        drawn[hidden] = other.id


def _protected(drawn: npt.NDArray[np.integer], others: list[ObjectRecord]) -> set[int]:
    """Labels that nobody may overwrite: corrected objects, and paint that belongs to no object."""
    free = {other.id for other in others if not other.corrected}
    return {int(label) for label in np.unique(drawn) if label} - free


def _empty(bounds: Bounds) -> bool:
    return bounds[2] <= bounds[0] or bounds[3] <= bounds[1]


def note_stroke(
    record: ObjectRecord, now: npt.NDArray[np.integer], earlier: npt.NDArray[np.integer], bounds: Bounds
) -> Patch | None:
    """Return the mask that ``record`` had before a stroke, or None when the stroke left it as it was.

    ``now`` and ``earlier`` (h, w) are the labels of ``bounds`` after and before the stroke; ``bounds`` holds
    the object's extent.
    """
    before = earlier == record.id
    if np.array_equal(before, now == record.id):
        return None
    return Patch(bounds[0], bounds[1], before)


def still_corrected(record: ObjectRecord, read: ReadRegion) -> bool:
    """Tell whether a corrected object still differs from its mask before the correction (undo may have it back)."""
    if record.before is None:
        return False
    bounds = union(record.extent, record.before.bounds)
    assert bounds is not None
    return not np.array_equal(read(bounds) == record.id, record.before.within(bounds))
