"""A mask of a part of a plane, and the bounds of such parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_medsam.evaluate.metrics import bbox_of

Bounds = tuple[int, int, int, int]
"""Half-open (r0, c0, r1, c1) in whole plane pixels."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A boolean mask (h, w) whose first pixel is (row, col) of the plane."""

    row: int
    col: int
    mask: npt.NDArray[np.bool_]

    @property
    def bounds(self) -> Bounds:
        return (self.row, self.col, self.row + self.mask.shape[0], self.col + self.mask.shape[1])

    def within(self, bounds: Bounds) -> npt.NDArray[np.bool_]:
        """Return the patch cut and padded to ``bounds``: (r1 - r0, c1 - c0) bool."""
        r0, c0, r1, c1 = bounds
        out = np.zeros((max(r1 - r0, 0), max(c1 - c0, 0)), dtype=bool)
        top, left, bottom, right = intersection(bounds, self.bounds)
        if bottom > top and right > left:
            out[top - r0 : bottom - r0, left - c0 : right - c0] = self.mask[
                top - self.row : bottom - self.row, left - self.col : right - self.col
            ]
        return out

    def tight(self) -> Patch:
        """The same mask without the empty rows and columns around it; (0, 0) in the same place for an empty one."""
        bbox = bbox_of(self.mask)
        if bbox is None:
            return Patch(self.row, self.col, np.zeros((0, 0), bool))
        r0, c0, r1, c1 = bbox
        return Patch(self.row + r0, self.col + c0, np.ascontiguousarray(self.mask[r0:r1, c0:c1]))


def intersection(a: Bounds, b: Bounds) -> Bounds:
    """Return the common part of two bounds; empty (r1 <= r0 or c1 <= c0) where they do not meet."""
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))


def union(a: Bounds | None, b: Bounds | None) -> Bounds | None:
    """Return the smallest bounds that hold both; None stands for nothing."""
    if a is None or b is None:
        return b if a is None else a
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
