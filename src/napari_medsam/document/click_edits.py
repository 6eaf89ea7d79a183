"""What it means for a part of an object that its clicks changed: which masks still count, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medsam.document.compose import ReadRegion, redraw_box
from napari_medsam.document.objects import Document, Part, PlaneKey
from napari_medsam.geometry import Patch
from napari_medsam.segment.engine import ClickHistory, MaskBefore
from napari_medsam.segment.prompt import Point


@dataclass(frozen=True)
class ClickEdit:
    """What changed clicks ask for.

    restore: the mask to put back, since only the last clicks were taken away. ask: the part is to be decoded. kept:
    its painted mask stays as it is. gone: nothing is left that says what the object is.
    """

    restore: MaskBefore | None = None
    ask: bool = False
    kept: bool = False
    gone: bool = False


def set_points(
    document: Document, object_id: int, plane: PlaneKey, points: tuple[Point, ...], standing: MaskBefore
) -> ClickEdit:
    """Give an object other clicks on a plane. standing: its mask there as it is now (`as_it_stands`).

    The masks before the clicks that stay, up to the first that changed, are kept; the rest is decoded from there. What
    a person painted is never given up: later clicks refine it, and it comes back when they are taken away.
    """
    part = document.part(object_id, plane)
    same = _common(part.points, points)
    if same == len(points) == len(part.points):
        return ClickEdit()
    painted = part.corrected and standing.painted is not None
    masks_before = _masks_before(part, points, same, standing, painted)
    document.update_part(object_id, plane, points=points, masks_before=masks_before, problem=None)
    if same < len(points):
        return ClickEdit(ask=True)
    if painted:
        return ClickEdit(kept=True)
    taken = part.masks_before[same:]
    before = next((mask for mask in reversed(taken) if mask.painted is not None), taken[0])
    if before.patch is not None:
        return ClickEdit(restore=before)
    gone = document.part(object_id, plane).prompt is None
    return ClickEdit(ask=not gone, gone=gone)


def _masks_before(
    part: Part, points: tuple[Point, ...], same: int, standing: MaskBefore, painted: bool
) -> ClickHistory:
    """The masks before an object's new clicks, as far as they are known; the first `same` clicks did not change."""
    known = part.masks_before
    before = known[same] if same < len(part.points) else standing
    masks = [*known[:same], before, *(MaskBefore() for _ in points[same + 1 :])][: len(points)]
    if not masks:
        return ()
    if painted:
        masks[-1] = standing
    last = max((n for n, mask in enumerate(known) if mask.painted is not None), default=-1)
    if same < last and not painted:  # clicks before the painting changed: those after it still refine it
        masks[min(max(last + len(points) - len(part.points), 0), len(masks) - 1)] = known[last]
    return tuple(masks)


def as_it_stands(part: Part, read: ReadRegion | None) -> MaskBefore:
    """An object's mask as a click finds it: its prediction, or its pixels where they are no longer that.

    read: gives the labels of a region of its plane, None where there are no labels. Pixels that another object took
    are no change of its own; a brush, an eraser, or an undo of the last mask is.
    """
    patch = part.patch
    box = redraw_box(part)
    if read is None or box is None:
        return MaskBefore(part.prediction)
    labels = read(box)
    own = labels == part.object_id
    claimed = np.zeros_like(own) if patch is None else patch.within(box)
    if own.any() and ((own & ~claimed).any() or (claimed & (labels == 0)).any()):
        return MaskBefore(part.prediction, Patch(*box.corner, own))
    return MaskBefore(part.prediction)


def _common(one: tuple[Point, ...], other: tuple[Point, ...]) -> int:
    """How many clicks two series have in common, from the first on."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same
