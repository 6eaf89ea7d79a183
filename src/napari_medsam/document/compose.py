"""How objects share the pixels of one plane: what a changed part does to a region of the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import Part
from napari_medsam.document.overlap import Policy, paste
from napari_medsam.geometry import Box, Patch, union

ReadRegion = Callable[[Box], npt.NDArray[np.integer]]
"""Reads the labels of one plane in a box of whole pixels: (h, w) integer labels."""


def redraw(
    region: npt.NDArray[np.integer],
    box: Box,
    part: Part,
    others: Iterable[Part],
    policy: Policy,
    *,
    erase: bool = False,
) -> npt.NDArray[np.integer]:
    """Return ``region`` as it looks once ``part`` is drawn anew.

    ``region`` holds the labels of ``box`` (h, w). The object's old pixels outside its prediction are given back to
    the predictions they hid, latest first, or to the background; what it held and still claims stays its own. Then
    the prediction is pasted under ``policy``. With ``erase`` nothing is claimed or pasted. The input is left alone;
    the result is int64, which holds every id, whatever the layer's type.
    """
    drawn = region.astype(np.int64)
    rest = [other for other in others if other.object_id != part.object_id]
    patch = None if erase else part.patch
    claimed = np.zeros(drawn.shape, dtype=bool) if patch is None else patch.within(box)
    freed = (region == part.object_id) & ~claimed
    drawn[freed] = 0
    if freed.any():
        _give_back(drawn, freed, box, rest)
    if claimed.any():
        protected = _protected(drawn, rest) if policy == "corrected" else ()
        drawn[paste(drawn, claimed, part.object_id, policy, protected)] = part.object_id
    return drawn


def redraw_box(part: Part) -> Box | None:
    """Return the box that ``redraw`` must see: old pixels and new prediction; None if there are neither."""
    patch = part.patch
    return union(part.extent, patch.box if patch is not None and patch.mask.size else None)


def _give_back(
    drawn: npt.NDArray[np.integer],
    freed: npt.NDArray[np.bool_],
    box: Box,
    others: list[Part],
) -> None:
    for other in sorted(others, key=lambda entry: entry.turn, reverse=True):
        patch = other.patch
        if patch is None or other.corrected or not box.meets(patch.box):
            continue
        hidden = patch.within(box) & freed & (drawn == 0)
        drawn[hidden] = other.object_id


def _protected(drawn: npt.NDArray[np.integer], others: list[Part]) -> set[int]:
    """Labels that nobody may overwrite: corrected objects, and paint that belongs to no object."""
    free = {other.object_id for other in others if not other.corrected}
    return {int(label) for label in np.unique(drawn) if label} - free


def note_stroke(
    part: Part, now: npt.NDArray[np.integer], earlier: npt.NDArray[np.integer], box: Box
) -> Patch | None:
    """Return the mask that ``part`` had before a stroke, or None when the stroke left it as it was.

    ``now`` and ``earlier`` (h, w) are the labels of ``box`` after and before the stroke; ``box`` holds
    the object's extent.
    """
    before = earlier == part.object_id
    if np.array_equal(before, now == part.object_id):
        return None
    return Patch(*box.corner, before)


def still_corrected(part: Part, read: ReadRegion) -> bool:
    """Tell whether a corrected object still differs from its mask before the correction (undo may have it back)."""
    if part.before is None:
        return False
    box = union(part.extent, part.before.box)
    assert box is not None
    return not np.array_equal(read(box) == part.object_id, part.before.within(box))
