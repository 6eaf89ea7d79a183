"""What it means for an object that its clicks changed: which masks still count, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medsam.document.compose import ReadRegion, redraw_bounds
from napari_medsam.document.objects import Document, ObjectRecord
from napari_medsam.geometry import Patch
from napari_medsam.segment.engine import Earlier, Trail
from napari_medsam.segment.prompt import Point


@dataclass(frozen=True)
class Change:
    """What changed clicks ask for.

    restore: the mask to put back, since only the last clicks were taken away. ask: the object is to be decoded. kept:
    its painted mask stays as it is. gone: nothing is left that says what the object is.
    """

    restore: Earlier | None = None
    ask: bool = False
    kept: bool = False
    gone: bool = False


def set_points(document: Document, object_id: int, points: tuple[Point, ...], standing: Earlier) -> Change:
    """Give an object other clicks. standing: its mask as it is now (`as_it_stands`).

    The masks before the clicks that stay, up to the first that changed, are kept; the rest is decoded from there. What
    a person painted is never given up: later clicks refine it, and it comes back when they are taken away.
    """
    record = document[object_id]
    same = _common(record.points, points)
    if same == len(points) == len(record.points):
        return Change()
    painted = record.corrected and standing.painted is not None
    trail = _trail(record, points, same, standing, painted)
    document.update(object_id, points=points, trail=trail, problem=None)
    if same < len(points):
        return Change(ask=True)
    if painted:
        return Change(kept=True)
    taken = record.trail[same:]
    before = next((mask for mask in reversed(taken) if mask.painted is not None), taken[0])
    if before.patch is not None:
        return Change(restore=before)
    gone = document[object_id].prompt is None
    return Change(ask=not gone, gone=gone)


def _trail(
    record: ObjectRecord, points: tuple[Point, ...], same: int, standing: Earlier, painted: bool
) -> Trail:
    """The masks before an object's new clicks, as far as they are known; the first `same` clicks did not change."""
    before = record.trail[same] if same < len(record.points) else standing
    trail = [*record.trail[:same], before, *(Earlier() for _ in points[same + 1 :])][: len(points)]
    if not trail:
        return ()
    if painted:
        trail[-1] = standing
    last = max((n for n, mask in enumerate(record.trail) if mask.painted is not None), default=-1)
    if same < last and not painted:  # clicks before the painting changed: those after it still refine it
        trail[min(max(last + len(points) - len(record.points), 0), len(trail) - 1)] = record.trail[last]
    return tuple(trail)


def as_it_stands(record: ObjectRecord, read: ReadRegion | None) -> Earlier:
    """An object's mask as a click finds it: its prediction, or its pixels where they are no longer that.

    read: gives the labels of a region of its plane, None where there are no labels. Pixels that another object took
    are no change of its own; a brush, an eraser, or an undo of the last mask is.
    """
    patch = record.patch
    bounds = redraw_bounds(record)
    if read is None or bounds is None:
        return Earlier(record.prediction)
    labels = read(bounds)
    own = labels == record.id
    claimed = np.zeros_like(own) if patch is None else patch.within(bounds)
    if own.any() and ((own & ~claimed).any() or (claimed & (labels == 0)).any()):
        return Earlier(record.prediction, Patch(bounds[0], bounds[1], own))
    return Earlier(record.prediction)


def _common(one: tuple[Point, ...], other: tuple[Point, ...]) -> int:
    """How many clicks two series have in common, from the first on."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same
