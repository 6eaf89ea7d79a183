"""Which field answers a box: the whole plane for what is large in it, a field around the box for what is small.

The figures behind the defaults are in docs/fields.md; `benchmarks/accuracy.py --study` makes them again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, Kind, whole_field
from napari_medsam.image.plane import Plane

WHOLE_UP_TO = 2**24
"""Planes whose coarsest level has more pixels are shown whole only to a box that needs it: it takes seconds."""


@dataclass(frozen=True)
class FieldPolicy:
    """How a field is chosen for a box.

    context: side of a centred field over the box's longer side. wide_context: the same for a box of at least
    `wide_from` of the plane's longer side; such an object is large enough to profit more from what surrounds it
    than from being enlarged. whole_above: share of the plane's longer side from which a box is shown the whole
    plane. smallest: least side of a field, in plane pixels. steps: centred fields have sides of 2 ** (n / steps),
    so that a nudged box meets the same one. snap: their corners lie on a raster of side / snap. grid_room: least
    side of a grid field over the box's longer side.
    """

    context: float = 2.0
    wide_context: float = 3.0
    wide_from: float = 0.1
    whole_above: float = 0.5
    smallest: int = 32
    steps: int = 4
    snap: int = 16
    grid_room: float = 2.0


DEFAULT_POLICY = FieldPolicy()


def field_of(
    choice: str | Field, box: Box, shape: tuple[int, int], policy: FieldPolicy = DEFAULT_POLICY
) -> Field:
    """The field that answers a box: "auto" chooses by its size, "whole" is the whole plane of `shape`.

    Raises PromptError for another word.
    """
    if isinstance(choice, Field):
        return choice
    if choice == "auto":
        return centred_field(box, shape, policy)
    if choice != "whole":
        raise PromptError(f"Unknown field {choice!r}. Choose 'auto', 'whole' or pass a Field.")
    return whole_field(shape)


def shown_whole(plane: Plane) -> bool:
    """Whether the plane can be read whole, at its coarsest level, in a moment."""
    height, width = plane.level_shape(len(plane.levels) - 1)
    return height * width <= WHOLE_UP_TO


def centred_field(box: Box, shape: tuple[int, int], policy: FieldPolicy) -> Field:
    """The field around a box that gives the best mask: a square inside the plane, or the whole plane.

    box: inside a plane of `shape` (H, W). A field that would cover the plane's shorter side is cut to it.
    """
    longest = box.longest
    if longest >= policy.whole_above * max(shape):
        return whole_field(shape)
    wide = longest >= policy.wide_from * max(shape)
    wanted = max((policy.wide_context if wide else policy.context) * longest, policy.smallest)
    side = math.ceil(2 ** (math.ceil(policy.steps * math.log2(wanted) - 1e-9) / policy.steps))
    if side >= max(shape):
        return whole_field(shape)
    raster = max(1, side // policy.snap)
    return _square(box, side, shape, raster, "centred")


def grid_field(box: Box, shape: tuple[int, int], policy: FieldPolicy) -> Field:
    """The grid field that holds a box with the most room around it: side 2 ** k, stride half a side."""
    side = 2 ** math.ceil(math.log2(max(policy.grid_room * box.longest, policy.smallest)) - 1e-9)
    if side >= max(shape):
        return whole_field(shape)
    return _square(box, side, shape, side // 2, "grid")


def grid_side(view: Box, policy: FieldPolicy) -> int:
    """The side of the grid fields to embed ahead for what is on screen: what is drawn in a view is seldom larger than
    half of it."""
    return 1 << max(math.ceil(math.log2(max(policy.smallest, view.longest)) - 1e-9) - 1, 5)


def grid_fields(box: Box, side: int, shape: tuple[int, int]) -> list[Field]:
    """All grid fields of one side that meet the pixels of a box, those nearest to its middle first."""
    if side >= max(shape):
        return [whole_field(shape)]
    pixels = box.outward()
    rows, cols = (_starts(part, side, length) for part, length in zip(pixels.slices, shape, strict=True))
    height, width = min(side, shape[0]), min(side, shape[1])

    def distance(field: Field) -> tuple[float, int, int]:
        return math.dist(field.box.centre, pixels.centre), field.row, field.col

    return sorted((Field(row, col, height, width, "grid") for row in rows for col in cols), key=distance)


def _square(box: Box, side: int, shape: tuple[int, int], raster: int, kind: Kind) -> Field:
    """The field of a side around a box, its corner on a raster, moved inside the plane and cut to it."""
    (row, height), (col, width) = (
        _span(middle, side, length, raster) for middle, length in zip(box.centre, shape, strict=True)
    )
    return Field(row, col, height, width, kind)


def _span(centre: float, side: int, length: int, raster: int) -> tuple[int, int]:
    """(start, length) of a stretch of `side` around `centre` on a raster, moved inside 0..length."""
    if side >= length:
        return 0, length
    start = round((centre - side / 2) / raster) * raster
    return min(max(start, 0), length - side), side


def _starts(part: slice, side: int, length: int) -> list[int]:
    """Starts of the grid stretches that meet a part; the last one is moved inside the plane."""
    if side >= length:
        return [0]
    stride = side // 2
    low, high = max(part.start - side + 1, 0), min(part.stop - 1, length - 1)
    starts = {min(start, length - side) for start in range(-(-low // stride) * stride, high + 1, stride)}
    return sorted(starts) or [min(low, length - side)]
