"""An object's clicks one after the other: each is answered from the mask before it, as the decoder has learned them.

The mask after some clicks depends on the box, the clicks and the field, never on clicks that were taken back: what is
not known for a field is decoded again from the box on, or from the last mask that a person painted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import Field
from napari_medsam.segment.clicks import answer, check_learned
from napari_medsam.segment.fields import FieldPolicy, centred_field
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Prompt
from napari_medsam.segment.segmenter import predict

if TYPE_CHECKING:
    from napari_medsam.embedding.embed import Embedding
    from napari_medsam.model.api import Model


@dataclass(frozen=True, eq=False)
class Earlier:
    """An object's mask before a click: as predicted, and as it stood where a person had made something else of it.

    Neither stands for a mask that is not known, or for none: before the first click on an object without a box.
    """

    prediction: Prediction | None = None
    painted: Patch | None = None

    @property
    def patch(self) -> Patch | None:
        """The mask; None where there is none."""
        if self.painted is not None or self.prediction is None:
            return self.painted
        return self.prediction.patch


Trail = tuple[Earlier, ...]
"""The mask before each of an object's clicks, in their order."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """The mask after the last click, and what is now known of those before."""

    prediction: Prediction
    trail: Trail


def replay(model: Model, embedding: Embedding, prompt: Prompt, trail: Trail) -> Replayed:
    """Decode an object on an embedded field: its box, then its clicks one by one, as far as they are not known.

    prompt: checked against the embedding's plane. trail: one for each click; a painted mask, or one predicted on this
    field, need not be decoded again. Raises PromptError for clicks that the decoder has not learned, ModelError when
    it fails.
    """
    if not prompt.points:
        assert prompt.box is not None
        [found] = predict(model, embedding, [prompt.box])
        return Replayed(found, ())
    check_learned(model)
    known = [*trail]
    first = max((number for number, mask in enumerate(known) if _serves(mask, embedding)), default=-1)
    if first < 0:
        first = 0
        if prompt.box is not None:
            known[0] = Earlier(predict(model, embedding, [prompt.box])[0])
    latest: Prediction | None = None
    for number in range(first, len(prompt.points)):
        said = replace(prompt, points=prompt.points[: number + 1])
        if prompt.box is not None or any(point.positive for point in said.points):
            latest = answer(model, embedding, said, known[number].patch)
        if number + 1 < len(known):
            known[number + 1] = Earlier(latest)
    assert latest is not None  # the last click has all before it: some are on the object
    return Replayed(latest, tuple(known))


def without_predictions(trail: Trail) -> Trail:
    """A trail of which only what a person painted still holds: with another decoder, say."""
    return tuple(Earlier(painted=mask.painted) for mask in trail)


def field_of_mask(mask: Earlier, shape: tuple[int, int], policy: FieldPolicy) -> Field | None:
    """The field that fits an object's mask: the one it was found on, or one around what was painted; None for none."""
    if mask.painted is not None:
        return centred_field(Box(*mask.painted.bounds), shape, policy)
    return None if mask.prediction is None else mask.prediction.field


def _serves(mask: Earlier, embedding: Embedding) -> bool:
    """Whether a mask can be built on when this field is decoded."""
    if mask.painted is not None:
        return True
    return mask.prediction is not None and mask.prediction.key == embedding.key
