"""The click protocol: which region a click says is wrong, what the decoder is shown, and how far its answer reaches.

People click in the middle of what is wrong. So an error reaches about as far beyond the click as the mask's edge lies
before it: that distance is the click's depth. A decoder is shown the mask with a disc of that size added or taken away,
and what it answers counts near the click only: nobody wants a click to change the other end of an object.

Window, Python API, training and benchmarks all ask by `click_step`: a decoder is used as it was trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medsam.image.field import Frame
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.logits import LOGITS, logit_pitch

Mask = npt.NDArray[np.bool_]

DISC = 1.2
"""Radius of the disc that is suggested, in depths. docs/clicks.md has the figures."""

REACH = 2.0
"""Radius within which the decoder's answer counts, in depths."""

SURE = 6.0
"""Logit of a pixel that an earlier mask covers; the opposite one outside. Decoders learn it so."""

SOFT = 2
"""Logits over which the edge of an earlier mask is softened; training varies it."""


@dataclass(frozen=True)
class Correction:
    """A click at (row, col) of a mask that says the opposite there; the mask's edge lies `depth` pixels away."""

    row: float
    col: float
    positive: bool
    depth: float

    def scaled(self, row: float, col: float, factor: float) -> Correction:
        """The same click on another raster, at (row, col) of it, whose pixels are `factor` times as small."""
        return Correction(row, col, self.positive, self.depth * factor)

    def within(self, shape: tuple[int, int], depths: float, corner: tuple[int, int] = (0, 0)) -> Mask:
        """The pixels within so many depths of the click: (H, W) bool, of a raster that begins at `corner`."""
        rows = np.arange(corner[0], corner[0] + shape[0])[:, None] - self.row
        cols = np.arange(corner[1], corner[1] + shape[1])[None, :] - self.col
        near: Mask = rows**2 + cols**2 <= (depths * self.depth) ** 2
        return near


@dataclass(frozen=True, eq=False)
class ClickStep:
    """One question to a decoder on the logits of a field's content: what it is shown, and what its answer may change.

    before: the mask (h, w) before the newest click, None for none. correction: what that click corrects of it.
    """

    prompt: FramePrompt
    before: Mask | None
    correction: Correction | None

    def after(self, answer: Mask) -> Mask:
        """The mask (h, w) after the click: the answer where it counts."""
        return answer if self.before is None else settled(self.before, answer, self.correction)


def click_step(asked: FramePrompt, before: Mask | None, frame: Frame, soft: int | None = SOFT) -> ClickStep:
    """What a decoder is asked: box and clicks, the newest click last, on the mask before that click.

    asked: box and clicks alone. before: (h, w) on the logits of the field's content; None or empty counts as no mask.
    soft: None does not show the mask.
    """
    pitch = logit_pitch(frame)
    correction = None
    if before is not None and len(asked.points):
        row, col = ((asked.points[-1] + 0.5) / pitch - 0.5).tolist()
        correction = correction_of(before, row, col, bool(asked.positive[-1]))
    shown = None
    if before is not None and soft is not None:
        shown = mask_prompt(suggested(before, correction), frame, soft)
    within = None  # without a box, parts that hold a click are looked for everywhere
    if correction is not None and asked.box is not None:
        within = _frame_bounds(correction, pitch)
    return ClickStep(replace(asked, mask=shown, within=within), before, correction)


def correction_of(mask: Mask, row: float, col: float, positive: bool) -> Correction | None:
    """What a click at (row, col) corrects of a mask (H, W); None where the mask says so already, or is empty.

    A click outside the raster counts as one on its nearest pixel.
    """
    place = tuple(
        int(np.clip(math.floor(at + 0.5), 0, side - 1))
        for at, side in zip((row, col), mask.shape, strict=True)
    )
    if not mask.any() or bool(mask[place]) == positive:
        return None
    wrong = ~mask if positive else mask
    rows, cols = np.nonzero(~wrong)
    if not len(rows):
        return None  # a mask of everything: no edge tells how far
    nearest = ((rows - place[0]) ** 2 + (cols - place[1]) ** 2).min()
    return Correction(row, col, positive, math.sqrt(nearest))


def suggested(mask: Mask, correction: Correction | None) -> Mask:
    """The mask (H, W) with a disc around the click added or taken away."""
    if correction is None:
        return mask
    disc = correction.within((mask.shape[0], mask.shape[1]), DISC)
    return mask | disc if correction.positive else mask & ~disc


def settled(
    mask: Mask, answer: Mask, correction: Correction | None, corner: tuple[int, int] = (0, 0)
) -> Mask:
    """The answer near the click, the mask elsewhere; both (H, W), of a raster that begins at `corner`.

    Where the click corrects nothing, the answer counts everywhere.
    """
    if correction is None:
        return answer
    near = correction.within((mask.shape[0], mask.shape[1]), REACH, corner)
    return np.where(near, answer, mask)


def mask_prompt(mask: Mask, frame: Frame, soft: int = SOFT) -> npt.NDArray[np.float32] | None:
    """A mask (h, w) on the logits of a field's content as a prompt over the whole frame; None for an empty one.

    SAM's mask prompts are logits of the answer before. This one is made of the mask itself, as it stands in the plane:
    so it fits whatever field comes next, and a mask that a person painted counts as one that was predicted.
    soft: over so many logits its edges are softened.
    """
    if not mask.any():
        return None
    side = min(LOGITS, frame.size)
    logits = np.full((side, side), -SURE, np.float32)
    smooth = ndimage.uniform_filter(mask.astype(np.float32), soft)
    logits[: mask.shape[0], : mask.shape[1]] = (2 * smooth - 1) * SURE
    return logits


def _frame_bounds(correction: Correction, pitch: float) -> tuple[float, float, float, float]:
    """Where in the frame a correction on logits counts, and some logits more, between which a mask's edge is drawn."""
    reach = REACH * correction.depth + 4
    row, col = correction.row + 0.5, correction.col + 0.5
    r0, c0, r1, c1 = (float(edge) * pitch for edge in (row - reach, col - reach, row + reach, col + reach))
    return r0, c0, r1, c1
