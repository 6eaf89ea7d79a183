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
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box, Patch
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
    least = math.ceil(math.log2(policy.smallest) - 1e-9)
    return 1 << max(round(math.log2(box.longest / detail)), least, 1)


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
    if side >= box.longest:
        return []
    return [field for field in grid_fields(box, side, shape) if _holds_enough(field, box, side)]


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
        part = self.box.intersect(field.box)
        prompt = field.to_frame(part.array()[None], frame)
        decoded = model.decode(embedding.features, prompt, key=embedding.key)
        self._add_logits(logits_in_field(decoded.logits[0], field, frame, field.box), field)
        self._iou += float(decoded.iou[0]) * part.area
        self._area += part.area
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
        found = Patch(*self.box.corner, np.zeros((0, 0), dtype=bool))
        if self._total is not None and (self._total > 0).any():
            # The weights are positive: the sign of the weighted sum is the sign of the mean.
            found = Patch(self.field.row, self.field.col, self._total > 0).tight()
        key = hashlib.sha256("\n".join(sorted(self._keys)).encode()).hexdigest()
        iou = self._iou / self._area if self._area else 0.0
        return Prediction(self.box, found.row, found.col, found.mask, iou, key, self.field)

    def _add_logits(self, logits: npt.NDArray[np.float32], field: Field) -> None:
        if self._total is None:
            self._total = np.zeros((self.field.height, self.field.width), np.float32)
        self._total[self._inside(field)] += logits * _window(field)

    def _inside(self, field: Field) -> tuple[slice, slice]:
        return field.box.moved(-self.field.row, -self.field.col).slices


def _holds_enough(field: Field, box: Box, side: int) -> bool:
    """Whether a field holds enough of the box along both axes, or all that there is of it."""
    part, least = box.intersect(field.box), LEAST_SHARE * side
    return part.height >= min(least, box.height) and part.width >= min(least, box.width)


def _around(fields: tuple[Field, ...], shape: tuple[int, int]) -> Field:
    """The smallest field that holds all of some fields."""
    box, whole = reduce(Box.union, (field.box for field in fields)), whole_field(shape)
    return whole if box == whole.box else Field.of(box, "grid")


def _window(field: Field) -> npt.NDArray[np.float32]:
    return np.outer(field_weights(field.height), field_weights(field.width))
