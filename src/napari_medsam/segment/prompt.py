"""What the user drew for one object: a box, clicks, or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box


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
    """What describes one object: a box, clicks in the order in which they were made, or both."""

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
        array = np.asarray(boxes, dtype=np.float64)
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
