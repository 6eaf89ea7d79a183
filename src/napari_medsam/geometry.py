"""Rectangles and masks in a plane. Half-open, in plane pixels, rows before columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import PromptError
from napari_medsam.packed import PackedMask

Mask = Annotated[npt.NDArray[np.bool_], PackedMask]
"""(h, w) bool."""


class Box(NamedTuple):
    """A rectangle [r0, r1) x [c0, c1) in plane pixels; pixel i covers [i, i + 1).

    Also the tuple (r0, c0, r1, c1). One whose edges are whole numbers says which pixels: `shape` and `slices`.
    """

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

    @classmethod
    def of_plane(cls, shape: tuple[int, int]) -> Box:
        """All of a plane of shape (H, W)."""
        return cls(0, 0, *shape)

    @property
    def height(self) -> float:
        return self.r1 - self.r0

    @property
    def width(self) -> float:
        return self.c1 - self.c0

    @property
    def longest(self) -> float:
        """The longer side."""
        return max(self.height, self.width)

    @property
    def area(self) -> float:
        """0 for an empty box, never negative."""
        return max(self.height, 0) * max(self.width, 0)

    @property
    def centre(self) -> tuple[float, float]:
        return (self.r0 + self.r1) / 2, (self.c0 + self.c1) / 2

    @property
    def empty(self) -> bool:
        """Whether it holds nothing; true of what two boxes share that do not meet."""
        return self.r1 <= self.r0 or self.c1 <= self.c0

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the pixels inside, for whole numbers; (0, 0) or more."""
        return max(int(self.r1 - self.r0), 0), max(int(self.c1 - self.c0), 0)

    @property
    def corner(self) -> tuple[int, int]:
        """(row, col) of the first pixel inside, for whole numbers."""
        return int(self.r0), int(self.c0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, for whole numbers: `pixels[box.slices]`. An empty box gives no pixel."""
        (row, col), (height, width) = self.corner, self.shape
        return slice(row, row + height), slice(col, col + width)

    def outward(self) -> Box:
        """The pixels that the box touches: edges moved outwards to whole numbers."""
        return Box(math.floor(self.r0), math.floor(self.c0), math.ceil(self.r1), math.ceil(self.c1))

    def intersect(self, other: Box) -> Box:
        """What both boxes hold; `empty` where they do not meet."""
        a, b = self, other
        return Box(max(a.r0, b.r0), max(a.c0, b.c0), min(a.r1, b.r1), min(a.c1, b.c1))

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        a, b = self, other
        return Box(min(a.r0, b.r0), min(a.c0, b.c0), max(a.r1, b.r1), max(a.c1, b.c1))

    def meets(self, other: Box) -> bool:
        """Whether two boxes, neither of them empty, have something in common."""
        a, b = self, other
        return a.r0 < b.r1 and b.r0 < a.r1 and a.c0 < b.c1 and b.c0 < a.c1

    def contains(self, other: Box) -> bool:
        """Whether another box lies in this one entirely."""
        inside_rows = self.r0 <= other.r0 and other.r1 <= self.r1
        return inside_rows and self.c0 <= other.c0 and other.c1 <= self.c1

    def grown(self, top: float, left: float | None = None, bottom: float = 0, right: float = 0) -> Box:
        """Each edge moved outwards by so many pixels; one number moves all four."""
        if left is None:
            left = bottom = right = top
        return Box(self.r0 - top, self.c0 - left, self.r1 + bottom, self.c1 + right)

    def moved(self, rows: float, cols: float) -> Box:
        return Box(self.r0 + rows, self.c0 + cols, self.r1 + rows, self.c1 + cols)

    def clip(self, shape: tuple[int, int]) -> Box:
        """The part of the box inside a plane of shape (H, W).

        Raises PromptError when the box is not finite, has no area, or lies outside the plane.
        """
        if not all(math.isfinite(edge) for edge in self):
            raise PromptError(f"{self} is not finite. Draw it again.")
        if self.empty:
            raise PromptError(f"{self} has no area. Drag it open: r0 < r1 and c0 < c1.")
        inside = self.intersect(Box.of_plane(shape))
        if inside.empty:
            height, width = shape
            raise PromptError(f"{self} lies outside the plane of {height} x {width} pixels. Draw it inside.")
        return inside

    def array(self) -> npt.NDArray[np.float64]:
        """(4,) float64: r0, c0, r1, c1."""
        return np.array(self, dtype=np.float64)

    def __str__(self) -> str:
        return f"the box {self.r0:g},{self.c0:g},{self.r1:g},{self.c1:g}"


@dataclass(frozen=True, eq=False)
class Patch:
    """A boolean mask (h, w) whose first pixel is (row, col) of the plane."""

    row: int
    col: int
    mask: Mask

    @property
    def box(self) -> Box:
        return Box(self.row, self.col, self.row + self.mask.shape[0], self.col + self.mask.shape[1])

    def within(self, box: Box) -> npt.NDArray[np.bool_]:
        """The patch cut and padded to a box of whole numbers: (h, w) bool."""
        out = np.zeros(box.shape, dtype=bool)
        common = box.intersect(self.box)
        if not common.empty:
            here = common.moved(-self.row, -self.col)
            out[common.moved(-box.r0, -box.c0).slices] = self.mask[here.slices]
        return out

    def tight(self) -> Patch:
        """The same mask without the empty rows and columns around it; (0, 0) in the same place for an empty one."""
        bbox = bbox_of(self.mask)
        if bbox is None:
            return Patch(self.row, self.col, np.zeros((0, 0), bool))
        row, col = bbox.moved(self.row, self.col).corner
        return Patch(row, col, np.ascontiguousarray(self.mask[bbox.slices]))


def union(a: Box | None, b: Box | None) -> Box | None:
    """The smallest box that holds both; None stands for nothing."""
    if a is None or b is None:
        return b if a is None else a
    return a.union(b)


def bbox_of(mask: npt.ArrayLike) -> Box | None:
    """The bounding box of a mask (H, W), in whole pixels; None when it is empty."""
    inside = np.asarray(mask) != 0
    if inside.ndim != 2:
        raise ValueError(f"a bounding box is taken of a 2D mask, not of the shape {inside.shape}")
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) == 0:
        return None
    return Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
