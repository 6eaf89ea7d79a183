"""What a click on a mask means: which region is likely wrong, and how far its correction may reach.

People click in the middle of what is wrong. So an error reaches about as far beyond the click as the mask's edge lies
before it: that distance is the click's depth. A decoder is shown the mask with a disc of that size added or taken away,
and what it answers counts near the click only: nobody wants a click to change the other end of an object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

DISC = 1.2
"""Radius of the disc that is suggested, in depths. docs/clicks.md has the figures."""

REACH = 2.0
"""Radius within which the decoder's answer counts, in depths."""


@dataclass(frozen=True)
class Correction:
    """A click at (row, col) of a mask that says the opposite there; the mask's edge lies `depth` pixels away."""

    row: float
    col: float
    positive: bool
    depth: float

    def scaled(self, row: float, col: float, factor: float) -> Correction:
        """The same click on another raster, at (row, col) of it, whose pixels are `factor` times as small."""
        return Correction(row, col, self.positive, self.depth * factor)

    def within(self, shape: tuple[int, int], depths: float, corner: tuple[int, int] = (0, 0)) -> Mask:
        """The pixels within so many depths of the click: (H, W) bool, of a raster that begins at `corner`."""
        rows = np.arange(corner[0], corner[0] + shape[0])[:, None] - self.row
        cols = np.arange(corner[1], corner[1] + shape[1])[None, :] - self.col
        near: Mask = rows**2 + cols**2 <= (depths * self.depth) ** 2
        return near


def correction_of(mask: Mask, row: float, col: float, positive: bool) -> Correction | None:
    """What a click at (row, col) corrects of a mask (H, W); None where the mask says so already, or is empty.

    A click outside the raster counts as one on its nearest pixel.
    """
    place = tuple(
        int(np.clip(math.floor(at + 0.5), 0, side - 1))
        for at, side in zip((row, col), mask.shape, strict=True)
    )
    if not mask.any() or bool(mask[place]) == positive:
        return None
    wrong = ~mask if positive else mask
    rows, cols = np.nonzero(~wrong)
    if not len(rows):
        return None  # a mask of everything: no edge tells how far
    nearest = ((rows - place[0]) ** 2 + (cols - place[1]) ** 2).min()
    return Correction(row, col, positive, math.sqrt(nearest))


def suggested(mask: Mask, correction: Correction | None) -> Mask:
    """The mask (H, W) with a disc around the click added or taken away."""
    if correction is None:
        return mask
    disc = correction.within((mask.shape[0], mask.shape[1]), DISC)
    return mask | disc if correction.positive else mask & ~disc


def settled(
    mask: Mask, answer: Mask, correction: Correction | None, corner: tuple[int, int] = (0, 0)
) -> Mask:
    """The answer near the click, the mask elsewhere; both (H, W), of a raster that begins at `corner`.

    Where the click corrects nothing, the answer counts everywhere.
    """
    if correction is None:
        return answer
    near = correction.within((mask.shape[0], mask.shape[1]), REACH, corner)
    return np.where(near, answer, mask)
