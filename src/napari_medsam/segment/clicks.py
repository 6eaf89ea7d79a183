"""Clicks, a box or an earlier mask on an embedded field -> one object's mask; and which field answers a lone click.

SAM's mask prompts are logits of the round before. Here a mask prompt is made of the mask itself, as it stands in the
plane: so it fits whatever field comes next, and a mask that a person painted counts as one that was predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box, Patch, union
from napari_medsam.image.field import Field, Frame
from napari_medsam.model.api import knows_clicks
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.correction import REACH, Correction, correction_of, settled, suggested
from napari_medsam.segment.fields import FieldPolicy, centred_field
from napari_medsam.segment.logits import LOGITS, mask_from_logits, shares_of_logits
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt

if TYPE_CHECKING:
    from napari_medsam.embedding.embed import Embedding
    from napari_medsam.model.api import Model

SURE = 6.0
"""Logit of a pixel that an earlier mask covers; the opposite one outside. Decoders learn it so."""

ROUNDS = 4
"""So many fields are looked at for an object that has clicks only."""


def check_learned(model: Model) -> None:
    """Raises PromptError where a model has never learned clicks: its masks would be worse than none."""
    if not knows_clicks(model):
        raise PromptError(
            f"{model.name} has learned boxes only. Draw a box, or choose a model for clicks, such as lite-medsam."
        )


def answer(model: Model, embedding: Embedding, prompt: Prompt, earlier: Patch | None = None) -> Prediction:
    """Decode the mask of one object on an embedded field.

    prompt: checked against the embedding's plane (`Prompt.check`). earlier: the object's mask as it stands before the
    prompt's last click, predicted or painted: the click corrects it near itself (`segment.correction`). An empty one,
    or one outside the field, counts as none. Raises ModelError when the decoder fails.
    """
    field, frame = embedding.field, model.frame
    known = None if earlier is None else _on_logits(earlier, field, frame)
    clicks = _clicks_in_frame(prompt, field, frame)
    pitch = max(1.0, frame.size / LOGITS)
    change = None
    if known is not None and len(clicks.points):
        row, col = (clicks.points[-1] + 0.5) / pitch - 0.5
        change = correction_of(known, row, col, bool(clicks.positive[-1]))
    shown = None if known is None else mask_prompt(suggested(known, change), frame)
    within = None  # without a box, parts that hold a click are looked for everywhere
    if change is not None and prompt.box is not None:
        within = _frame_bounds(change, pitch)
    asked = replace(clicks, mask=shown, within=within)
    decoded = model.decode_prompt(embedding.features, asked, key=embedding.key)
    row, col, mask = mask_from_logits(decoded.logits[0], field, frame)
    found = Patch(row, col, mask) if prompt.box is not None else _clicked_parts(Patch(row, col, mask), prompt)
    if change is not None and earlier is not None:
        last = [point for point in prompt.points if _seen(point, field)][-1]
        per_logit = pitch / min(frame.scale(field))
        found = _settled(earlier, found, change.scaled(last.row, last.col, per_logit))
    if not found.mask.size:
        found = Patch(*first_corner(prompt), found.mask)
    return Prediction(
        prompt.box, found.row, found.col, found.mask, float(decoded.iou[0]), embedding.key, field
    )


def mask_prompt(mask: npt.NDArray[np.bool_], frame: Frame, width: int = 2) -> npt.NDArray[np.float32] | None:
    """A mask (h, w) on the logits of a field's content as a prompt over the whole frame; None for an empty one.

    width: over so many logits its edges are softened.
    """
    if not mask.any():
        return None
    side = min(LOGITS, frame.size)
    logits = np.full((side, side), -SURE, np.float32)
    soft = ndimage.uniform_filter(mask.astype(np.float32), width)
    logits[: mask.shape[0], : mask.shape[1]] = (2 * soft - 1) * SURE
    return logits


def lone_click(
    prompt: Prompt,
    shape: tuple[int, int],
    policy: FieldPolicy,
    look: Callable[[Field], Prediction],
) -> Prediction:
    """The mask of an object that has clicks only: nobody said how large it is, so fields are tried.

    look: decodes the prompt on a field. From the whole plane on, the next field is the one that
    would answer a box around the mask just found; it ends where that is the field just seen. The answer the model
    trusts most is taken (predicted IoU).
    """
    found: list[Prediction] = []
    field: Field | None = centred_field(Box(0, 0, *shape), shape, policy)
    while field is not None:
        found.append(look(field))
        field = next_field(prompt, found, shape, policy)
    return max(found, key=lambda prediction: prediction.iou)


def next_field(
    prompt: Prompt, found: Sequence[Prediction], shape: tuple[int, int], policy: FieldPolicy
) -> Field | None:
    """The field to look at next for an object that has clicks only, given what was found so far (at least once).

    It is the one that would answer a box around the last mask and the clicks on the object; None where that was
    looked at already, or after `ROUNDS` fields.
    """
    if len(found) >= ROUNDS:
        return None
    around = click_box(prompt, found[-1], shape)
    on_object = replace(prompt, box=around, points=tuple(point for point in prompt.points if point.positive))
    field = centred_field(reach(on_object), shape, policy)
    return None if any(field == known.field for known in found) else field


def reach(prompt: Prompt) -> Box:
    """The smallest box that holds the prompt's box and the pixels of its clicks."""
    corners: list[tuple[float, float]] = []
    if prompt.box is not None:
        corners = [(prompt.box.r0, prompt.box.c0), (prompt.box.r1, prompt.box.c1)]
    for point in prompt.points:
        pixel = point.pixel
        corners += [(pixel.r0, pixel.c0), (pixel.r1, pixel.c1)]
    return Box.from_points(corners)


def click_box(prompt: Prompt, found: Prediction, shape: tuple[int, int]) -> Box:
    """The box around what was found for clicks and around the plus clicks themselves, a little too large as people draw
    boxes; where nothing was found, a quarter of the field around the first click."""
    if not found.mask.size:
        row, col = first_corner(prompt)
        half = max(found.field.height, found.field.width) / 8
        return Box(row - half, col - half, row + half, col + half).clip(shape)
    pixels = [point.pixel.array() for point in prompt.points if point.positive]
    mask = (found.row, found.col, found.row + found.mask.shape[0], found.col + found.mask.shape[1])
    edges = np.array([mask, *pixels])
    low, high = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    room = 0.025 * (high - low)
    return Box(*(low - room).tolist(), *(high + room).tolist()).clip(shape)


def first_corner(prompt: Prompt) -> tuple[int, int]:
    """Where a mask lies that has no pixels: at the box's corner, or at the first click."""
    if prompt.box is not None:
        return int(prompt.box.r0), int(prompt.box.c0)
    return round(prompt.points[0].row), round(prompt.points[0].col)


def _seen(point: Point, field: Field) -> bool:
    return field.contains(point.pixel.array())


def _clicks_in_frame(prompt: Prompt, field: Field, frame: Frame) -> FramePrompt:
    """Box and clicks in plane pixels as the model wants them for a field. Clicks outside the field are left out."""
    box = None if prompt.box is None else field.to_frame(prompt.box.array()[None], frame)[0]
    seen = [point for point in prompt.points if _seen(point, field)]
    scale, corner = np.array(frame.scale(field)), np.array([field.row, field.col])
    places = np.array([[point.row, point.col] for point in seen], np.float64).reshape(-1, 2)
    points = (places + 0.5 - corner) * scale - 0.5
    positive = np.array([point.positive for point in seen], bool)
    return FramePrompt(box, points.astype(np.float32), positive)


def _frame_bounds(change: Correction, pitch: float) -> tuple[float, float, float, float]:
    """Where in the frame a correction on logits counts, and some logits more, between which a mask's edge is drawn."""
    reach = REACH * change.depth + 4
    row, col = change.row + 0.5, change.col + 0.5
    r0, c0, r1, c1 = (float(edge) * pitch for edge in (row - reach, col - reach, row + reach, col + reach))
    return r0, c0, r1, c1


def _on_logits(mask: Patch, field: Field, frame: Frame) -> npt.NDArray[np.bool_]:
    part = mask.within((field.row, field.col, field.row + field.height, field.col + field.width))
    on_logits: npt.NDArray[np.bool_] = shares_of_logits(part, field, frame) > 127
    return on_logits


def _clicked_parts(found: Patch, prompt: Prompt) -> Patch:
    """The parts of a mask that hold a plus click: without a box nothing else says that the rest is the same object.

    All of it where no part holds one.
    """
    parts, _ = ndimage.label(found.mask, structure=np.ones((3, 3)))
    clicked = set()
    for point in prompt.points:
        row, col = (int(edge) for edge in point.pixel.array()[:2])
        row, col = row - found.row, col - found.col
        if point.positive and 0 <= row < parts.shape[0] and 0 <= col < parts.shape[1]:
            clicked.add(int(parts[row, col]))
    mask = np.isin(parts, sorted(clicked - {0}))
    return Patch(found.row, found.col, mask).tight() if mask.any() else found


def _settled(earlier: Patch, found: Patch, change: Correction) -> Patch:
    """The mask found where the click counts and the earlier one elsewhere, as tight as it goes."""
    bounds = earlier.bounds if not found.mask.size else union(earlier.bounds, found.bounds)
    assert bounds is not None
    mask = settled(earlier.within(bounds), found.within(bounds), change, bounds[:2])
    return Patch(bounds[0], bounds[1], mask).tight()
