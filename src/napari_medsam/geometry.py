"""Rectangles and masks in a plane. Half-open, in plane pixels, rows before columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import PromptError

Bounds = tuple[int, int, int, int]
"""Half-open (r0, c0, r1, c1) in whole plane pixels."""


@dataclass(frozen=True)
class Box:
    """A rectangle [r0, r1) x [c0, c1) in plane pixels; pixel i covers [i, i + 1)."""

    r0: float
    c0: float
    r1: float
    c1: float

    @classmethod
    def from_points(cls, points: npt.ArrayLike) -> Box:
        """The bounding box of points (k, 2) in (row, col). Raises PromptError for none or other shapes."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
            raise PromptError(f"A box needs points of shape (k, 2) in (row, col), not {array.shape}.")
        (r0, c0), (r1, c1) = array.min(axis=0), array.max(axis=0)
        return cls(float(r0), float(c0), float(r1), float(c1))

    def clip(self, shape: tuple[int, int]) -> Box:
        """The part of the box inside a plane of shape (H, W).

        Raises PromptError when the box is not finite, has no area, or lies outside the plane.
        """
        edges = (self.r0, self.c0, self.r1, self.c1)
        if not all(math.isfinite(edge) for edge in edges):
            raise PromptError(f"{self} is not finite. Draw it again.")
        if self.r1 <= self.r0 or self.c1 <= self.c0:
            raise PromptError(f"{self} has no area. Drag it open: r0 < r1 and c0 < c1.")
        height, width = shape
        if self.r0 >= height or self.c0 >= width or self.r1 <= 0 or self.c1 <= 0:
            raise PromptError(f"{self} lies outside the plane of {height} x {width} pixels. Draw it inside.")
        return Box(max(self.r0, 0.0), max(self.c0, 0.0), min(self.r1, height), min(self.c1, width))

    def array(self) -> npt.NDArray[np.float64]:
        """(4,) float64: r0, c0, r1, c1."""
        return np.array([self.r0, self.c0, self.r1, self.c1], dtype=np.float64)

    def __str__(self) -> str:
        return f"the box {self.r0:g},{self.c0:g},{self.r1:g},{self.c1:g}"


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


def bbox_of(mask: npt.ArrayLike) -> tuple[int, int, int, int] | None:
    """The half-open bounding box (r0, c0, r1, c1) of a mask (H, W), in pixels; None when it is empty."""
    inside = np.asarray(mask) != 0
    if inside.ndim != 2:
        raise ValueError(f"a bounding box is taken of a 2D mask, not of the shape {inside.shape}")
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) == 0:
        return None
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1
