"""An object too large for one fine field, decoded field by field: its box clipped to each, the logits blended.

A field shows 256 x 256 pixels to the model, however large it is. Thin structures, vessels for one, are lost when the
whole object is fitted into one; here the object is laid out over the fields of a grid of its own fineness. That pays
for a decoder fine-tuned on such fields. The released one expects to see where an object ends: on compact objects it
does worse in detail than on one field (benchmarks/detail.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, whole_field
from napari_medsam.segment.fields import FieldPolicy, grid_fields
from napari_medsam.segment.logits import logits_in_field
from napari_medsam.segment.prediction import Prediction

if TYPE_CHECKING:
    from napari_medsam.embedding.embed import Embedding
    from napari_medsam.model.api import Model

MOST_DETAIL = 32

LEAST_SHARE = 0.25
"""A field that holds less of the box than this share of its side says little about it, and its neighbour, half a
side further in, holds all of that and more: it is left out. Up to a half, every pixel of the box stays covered.
Cells of em_isbi2012 score alike (within 0.03) from 2 / 256 to a half: it only saves encodes."""

_RIM = 0.01  # weight of a field's outermost pixels over that of its middle


def check_detail(detail: int) -> int:
    """The detail, if it is a whole number from 1 (off) to `MOST_DETAIL`; raises PromptError otherwise."""
    if (
        isinstance(detail, bool)
        or not isinstance(detail, (int, np.integer))
        or not 1 <= detail <= MOST_DETAIL
    ):
        raise PromptError(f"The detail is {detail!r}. Choose a whole number from 1 (off) to {MOST_DETAIL}.")
    return int(detail)


def detail_side(box: Box, detail: int, policy: FieldPolicy) -> int:
    """The side of the grid fields that a box is laid out on: the power of two nearest to its longer side / detail,
    and no less than the policy's smallest side, in plane pixels."""
    longest = max(box.r1 - box.r0, box.c1 - box.c0)
    least = math.ceil(math.log2(policy.smallest) - 1e-9)
    return 1 << max(round(math.log2(longest / detail)), least, 1)


def detail_fields(box: Box, shape: tuple[int, int], detail: int, policy: FieldPolicy) -> list[Field]:
    """The grid fields that a box is decoded on, those nearest to its middle first.

    box: inside a plane of `shape` (H, W). detail: 1 is off; K lays the box out on fields of about 1 / K of its
    longer side (`detail_side`), half a side apart. They depend on the box only through their side, so boxes of
    like size share them. Every pixel of the box lies in one. Empty when the box is not to be divided: detail 1, or
    a box that is no larger than the field. Raises PromptError for a detail outside 1..32.
    """
    if check_detail(detail) == 1:
        return []
    side = detail_side(box, detail, policy)
    if side >= max(box.r1 - box.r0, box.c1 - box.c0):
        return []
    bounds = (math.floor(box.r0), math.floor(box.c0), math.ceil(box.r1), math.ceil(box.c1))
    return [field for field in grid_fields(bounds, side, shape) if _holds_enough(field, box, side)]


def clip_to_field(box: Box, field: Field) -> Box:
    """The part of a box in a field, in plane pixels; without area (r1 <= r0 or c1 <= c0) when they do not meet."""
    return Box(
        max(box.r0, field.row),
        max(box.c0, field.col),
        min(box.r1, field.row + field.height),
        min(box.c1, field.col + field.width),
    )


def field_weights(length: int) -> npt.NDArray[np.float32]:
    """(length,) weights of a field's pixels along one axis: a raised cosine, 1 in the middle, never 0."""
    places = (np.arange(length) + 0.5) / length
    hill = 0.5 - 0.5 * np.cos(2 * np.pi * places)
    return (_RIM + (1 - _RIM) * hill).astype(np.float32)


class Blend:
    """One object's logits, put together from fields as they are decoded, in whatever order they come.

    box: the prompt. fields: those it is laid out on, at least one. shape: of the plane, (H, W). Holds one float32 for
    each pixel of the fields' bounding rectangle, made with the first field. Not thread-safe.
    """

    def __init__(self, box: Box, fields: Iterable[Field], shape: tuple[int, int]) -> None:
        self.box = box
        self.fields = tuple(fields)
        self.field = _around(self.fields, shape)
        self.awaited = dict.fromkeys(self.fields)
        self._keys: list[str] = []
        self._iou = 0.0
        self._area = 0.0
        self._total: npt.NDArray[np.float32] | None = None

    @property
    def done(self) -> int:
        """Fields that have been decoded, out of `len(fields)`."""
        return len(self.fields) - len(self.awaited)

    def add(self, model: Model, embedding: Embedding) -> None:
        """Decode the box on one of the fields and blend it in. Raises ValueError for a field not awaited."""
        field, frame = embedding.field, model.frame
        if field not in self.awaited:
            raise ValueError(f"{field} is not awaited for {self.box}")
        part = clip_to_field(self.box, field)
        prompt = field.to_frame(part.array()[None], frame)
        decoded = model.decode(embedding.features, prompt, key=embedding.key)
        self._add_logits(logits_in_field(decoded.logits[0], field, frame, _bounds(field)), field)
        area = (part.r1 - part.r0) * (part.c1 - part.c0)
        self._iou += float(decoded.iou[0]) * area
        self._area += area
        self._keys.append(embedding.key)
        del self.awaited[field]

    def logits(self) -> npt.NDArray[np.float32]:
        """The blended logits of `field`, (h, w) float32; -inf where no field has been decoded yet."""
        total = np.full((self.field.height, self.field.width), -np.inf, np.float32)
        weights = np.zeros_like(total)
        for field in self.fields:
            if field not in self.awaited:
                weights[self._inside(field)] += _window(field)
        if self._total is not None:
            np.divide(self._total, weights, out=total, where=weights > 0)
        return total

    def prediction(self) -> Prediction:
        """What is found so far: the mask where the blended logits are above zero, the mean of the predicted IoU
        weighted by the box's area in each field, and one key for all embeddings used."""
        row, col, mask = int(self.box.r0), int(self.box.c0), np.zeros((0, 0), dtype=bool)
        # The weights are positive: the sign of the weighted sum is the sign of the mean.
        found = mask if self._total is None else self._total > 0
        rows, cols = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
        if rows.size:
            mask = np.ascontiguousarray(found[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])
            row, col = self.field.row + int(rows[0]), self.field.col + int(cols[0])
        key = hashlib.sha256("\n".join(sorted(self._keys)).encode()).hexdigest()
        iou = self._iou / self._area if self._area else 0.0
        return Prediction(self.box, row, col, mask, iou, key, self.field)

    def _add_logits(self, logits: npt.NDArray[np.float32], field: Field) -> None:
        if self._total is None:
            self._total = np.zeros((self.field.height, self.field.width), np.float32)
        self._total[self._inside(field)] += logits * _window(field)

    def _inside(self, field: Field) -> tuple[slice, slice]:
        row, col = field.row - self.field.row, field.col - self.field.col
        return slice(row, row + field.height), slice(col, col + field.width)


def _holds_enough(field: Field, box: Box, side: int) -> bool:
    """Whether a field holds enough of the box along both axes, or all that there is of it."""
    part = clip_to_field(box, field)
    least = LEAST_SHARE * side
    return part.r1 - part.r0 >= min(least, box.r1 - box.r0) and part.c1 - part.c0 >= min(
        least, box.c1 - box.c0
    )


def _around(fields: tuple[Field, ...], shape: tuple[int, int]) -> Field:
    """The smallest field that holds all of some fields."""
    edges = np.array([_bounds(field) for field in fields])
    (r0, c0), (r1, c1) = edges[:, :2].min(axis=0).tolist(), edges[:, 2:].max(axis=0).tolist()
    whole = whole_field(shape)
    return whole if (r0, c0, r1, c1) == _bounds(whole) else Field(r0, c0, r1 - r0, c1 - c0, "grid")


def _bounds(field: Field) -> tuple[int, int, int, int]:
    return field.row, field.col, field.row + field.height, field.col + field.width


def _window(field: Field) -> npt.NDArray[np.float32]:
    return np.outer(field_weights(field.height), field_weights(field.width))
