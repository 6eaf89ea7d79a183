"""One click on an embedded field -> one object's mask; and which fields answer a lone click."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import Field, Frame
from napari_medsam.model.api import knows_clicks
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.correction import Correction, click_step, settled
from napari_medsam.segment.fields import FieldPolicy, centred_field
from napari_medsam.segment.logits import logit_pitch, mask_from_logits, shares_of_logits
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt

if TYPE_CHECKING:
    from napari_medsam.embedding.embed import Embedding
    from napari_medsam.model.api import Model

ROUNDS = 4
"""So many fields are looked at for a lone click."""


def check_learned(model: Model) -> None:
    """Raises PromptError where a model has never learned clicks: its masks would be worse than none."""
    if not knows_clicks(model):
        raise PromptError(
            f"{model.name} has learned boxes only. Draw a box, or choose a model for clicks, such as lite-medsam."
        )


def answer(model: Model, embedding: Embedding, prompt: Prompt, before: Patch | None = None) -> Prediction:
    """Decode the mask of one object on an embedded field.

    prompt: checked against the embedding's plane (`Prompt.check`). before: the object's mask as it stands before the
    prompt's last click, predicted or painted: the click corrects it near itself (`segment.correction`). An empty one,
    or one outside the field, counts as none. Raises ModelError when the decoder fails.
    """
    field, frame = embedding.field, model.frame
    known = None if before is None else _on_logits(before, field, frame)
    step = click_step(_clicks_in_frame(prompt, field, frame), known, frame)
    decoded = model.decode_prompt(embedding.features, step.prompt, key=embedding.key)
    row, col, mask = mask_from_logits(decoded.logits[0], field, frame)
    found = Patch(row, col, mask) if prompt.box is not None else _clicked_parts(Patch(row, col, mask), prompt)
    if step.correction is not None and before is not None:
        last = [point for point in prompt.points if _seen(point, field)][-1]
        per_logit = logit_pitch(frame) / min(frame.scale(field))
        found = _settled(before, found, step.correction.scaled(last.row, last.col, per_logit))
    if not found.mask.size:
        found = Patch(*first_corner(prompt), found.mask)
    return Prediction(
        prompt.box, found.row, found.col, found.mask, float(decoded.iou[0]), embedding.key, field
    )


def lone_click(
    prompt: Prompt, start: Field, shape: tuple[int, int], policy: FieldPolicy
) -> Generator[Field, Prediction, list[Prediction]]:
    """The fields to look at for an object that has clicks only: nobody said how large it is, so fields are tried.

    Give it what the prompt finds on each. After `start`, which holds the clicks, the next field is the one that would
    answer a box around the mask just found; it ends where that is known. Returns all that was found, what the model
    trusts most (predicted IoU) first.
    """
    found: list[Prediction] = []
    field: Field | None = start
    while field is not None:
        found.append((yield field))
        field = _next_field(prompt, found, shape, policy)
    return sorted(found, key=lambda prediction: -prediction.iou)


def click_field(
    prompt: Prompt, mask: Prediction | Patch, shape: tuple[int, int], policy: FieldPolicy
) -> Field:
    """The field for the newest click on an object without a box: the one of its mask for as long as that fits.

    mask: before that click, predicted or painted. It no longer fits where the box around mask and clicks on the object
    leaves it, or has become so small that it would be seen twice as fine elsewhere: a field is not given up for less,
    since another one costs an encode.
    """
    newest = prompt.points[-1:]
    if isinstance(mask, Patch):
        return centred_field(reach(Prompt(_around(mask, prompt.points, shape), newest)), shape, policy)
    around = reach(Prompt(click_box(prompt, mask, shape), newest))
    fitting = centred_field(around, shape, policy)
    fits = mask.field.box.contains(around) and _side(mask.field) <= 2 * _side(fitting)
    return mask.field if fits else fitting


def reach(prompt: Prompt) -> Box:
    """The smallest box that holds the prompt's box and the pixels of its clicks."""
    boxes = [point.pixel for point in prompt.points]
    return reduce(Box.union, boxes if prompt.box is None else [prompt.box, *boxes])


def click_box(prompt: Prompt, found: Prediction, shape: tuple[int, int]) -> Box:
    """The box around what was found for clicks and around the plus clicks themselves, a little too large as people draw
    boxes; where nothing was found, a quarter of the field around the first click."""
    if not found.mask.size:
        row, col = first_corner(prompt)
        half = max(found.field.height, found.field.width) / 8
        return Box(row, col, row, col).grown(half).clip(shape)
    return _around(found.patch, prompt.points, shape)


def _around(mask: Patch, points: Sequence[Point], shape: tuple[int, int]) -> Box:
    box = reduce(Box.union, (point.pixel for point in points if point.positive), mask.box)
    rows, cols = 0.025 * box.height, 0.025 * box.width
    return box.grown(rows, cols, rows, cols).clip(shape)


def first_corner(prompt: Prompt) -> tuple[int, int]:
    """Where a mask lies that has no pixels: at the box's corner, or at the first click."""
    if prompt.box is not None:
        return prompt.box.corner
    return round(prompt.points[0].row), round(prompt.points[0].col)


def _next_field(
    prompt: Prompt, found: Sequence[Prediction], shape: tuple[int, int], policy: FieldPolicy
) -> Field | None:
    """The field that would answer a box around the last mask and the clicks on the object; None where that was looked
    at already, or after `ROUNDS` fields."""
    if len(found) >= ROUNDS:
        return None
    around = click_box(prompt, found[-1], shape)
    on_object = replace(prompt, box=around, points=tuple(point for point in prompt.points if point.positive))
    field = centred_field(reach(on_object), shape, policy)
    return None if any(field == known.field for known in found) else field


def _side(field: Field) -> int:
    return max(field.height, field.width)


def _seen(point: Point, field: Field) -> bool:
    return field.box.contains(point.pixel)


def _clicks_in_frame(prompt: Prompt, field: Field, frame: Frame) -> FramePrompt:
    """Box and clicks in plane pixels as the model wants them for a field. Clicks outside the field are left out."""
    box = None if prompt.box is None else field.to_frame(prompt.box.array()[None], frame)[0]
    seen = [point for point in prompt.points if _seen(point, field)]
    scale, corner = np.array(frame.scale(field)), np.array([field.row, field.col])
    places = np.array([[point.row, point.col] for point in seen], np.float64).reshape(-1, 2)
    points = (places + 0.5 - corner) * scale - 0.5
    positive = np.array([point.positive for point in seen], bool)
    return FramePrompt(box, points.astype(np.float32), positive)


def _on_logits(mask: Patch, field: Field, frame: Frame) -> npt.NDArray[np.bool_]:
    part = mask.within(field.box)
    on_logits: npt.NDArray[np.bool_] = shares_of_logits(part, field, frame) > 127
    return on_logits


def _clicked_parts(found: Patch, prompt: Prompt) -> Patch:
    """The parts of a mask that hold a plus click: without a box nothing else says that the rest is the same object.

    All of it where no part holds one.
    """
    parts, _ = ndimage.label(found.mask, structure=np.ones((3, 3)))
    clicked = set()
    for point in prompt.points:
        row, col = point.pixel.moved(-found.row, -found.col).corner
        if point.positive and 0 <= row < parts.shape[0] and 0 <= col < parts.shape[1]:
            clicked.add(int(parts[row, col]))
    mask = np.isin(parts, sorted(clicked - {0}))
    return Patch(found.row, found.col, mask).tight() if mask.any() else found


def _settled(before: Patch, found: Patch, change: Correction) -> Patch:
    """The mask found where the click counts and the one before it elsewhere, as tight as it goes."""
    box = before.box if not found.mask.size else before.box.union(found.box)
    mask = settled(before.within(box), found.within(box), change, box.corner)
    return Patch(*box.corner, mask).tight()
