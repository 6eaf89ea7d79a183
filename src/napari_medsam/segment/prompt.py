"""What the user drew for one object: a box, clicks. Boxes are half-open, in plane pixels, rows before columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import PromptError


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


@dataclass(frozen=True)
class Point:
    """A click at (row, col) in plane pixels, whole numbers at pixel centres: the object is there, or it is not."""

    row: float
    col: float
    positive: bool = True

    def inside(self, shape: tuple[int, int]) -> bool:
        """Whether the point lies on a pixel of a plane of shape (H, W)."""
        return -0.5 <= self.row < shape[0] - 0.5 and -0.5 <= self.col < shape[1] - 0.5

    @property
    def pixel(self) -> Box:
        """The pixel the click lies on."""
        row, col = math.floor(self.row + 0.5), math.floor(self.col + 0.5)
        return Box(row, col, row + 1, col + 1)

    def check(self, shape: tuple[int, int]) -> Point:
        """The point itself. Raises PromptError when it is not finite or lies outside a plane of shape (H, W)."""
        if not self.inside(shape):  # nor where it is not a number
            raise PromptError(
                f"{self} lies outside the plane of {shape[0]} x {shape[1]} pixels. Click inside."
            )
        return self

    def __str__(self) -> str:
        return f"the click {self.row:g},{self.col:g},{'+' if self.positive else '-'}"


@dataclass(frozen=True)
class Prompt:
    """All that was said about one object: a box, clicks, or both."""

    box: Box | None = None
    points: tuple[Point, ...] = ()

    def check(self, shape: tuple[int, int]) -> Prompt:
        """The prompt with its box clipped to a plane of shape (H, W).

        Raises PromptError when it says nothing, has clicks but none on the object and no box, or leaves the plane.
        """
        if self.box is None and not any(point.positive for point in self.points):
            raise PromptError("A prompt needs a box, or a click on the object (+). Add one.")
        points = tuple(point.check(shape) for point in self.points)
        return Prompt(None if self.box is None else self.box.clip(shape), points)

    def __str__(self) -> str:
        parts = [str(part) for part in (self.box, *self.points) if part is not None]
        return ", ".join(parts)


def boxes_in_plane(boxes: npt.ArrayLike | Sequence[Box], shape: tuple[int, int]) -> list[Box]:
    """Check boxes (N, 4) of (r0, c0, r1, c1), or Boxes, and clip them to a plane of shape (H, W); N may be 0.

    Raises PromptError naming the first bad box by its number, counted from 1.
    """
    try:
        rows: Any = boxes
        if isinstance(boxes, Sequence):
            rows = [box.array() if isinstance(box, Box) else box for box in boxes]
        array = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PromptError(f"Boxes must be numbers of shape (N, 4): r0, c0, r1, c1 ({error}).") from error
    if array.shape in ((0,), (0, 4)):
        return []
    if array.ndim != 2 or array.shape[1] != 4:
        raise PromptError(f"Boxes must have the shape (N, 4): r0, c0, r1, c1; these have {array.shape}.")
    clipped = []
    for number, edges in enumerate(array.tolist(), start=1):
        try:
            clipped.append(Box(*edges).clip(shape))
        except PromptError as error:
            raise PromptError(f"Box {number}: {error}") from error
    return clipped
