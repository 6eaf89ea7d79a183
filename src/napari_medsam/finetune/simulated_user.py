"""One visit to a sample as a person would make it: a box or a click, then a click where the mask is wrong, and so on.

Drawing is apart from playing: `draw_plans` draws how each visit goes, and `play` goes through it; where the clicks of a
plan land depends on the masks that the decoder gives, and for equal masks on the plan's seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medsam.finetune.simulated_clicks import Click, Mask, next_click, region_of
from napari_medsam.geometry import bbox_of
from napari_medsam.image.field import Frame
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.correction import click_step
from napari_medsam.segment.logits import logit_pitch

if TYPE_CHECKING:
    from torch import Tensor

Start = Literal["box", "click", "mask"]
Decode = Callable[[FramePrompt], "tuple[Tensor, Tensor]"]

SPOILED = 4
"""A mask somebody might have painted is up to so many logits too wide or too narrow."""


@dataclass(frozen=True)
class Habits:
    """What people do, as shares: begin with a box, with a click, or with a click on a mask that is there already;
    ask for one, two, ... masks; have the earlier mask shown to the decoder."""

    box: float = 0.4
    click: float = 0.5
    mask: float = 0.1
    rounds: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    remembered: float = 0.8


BOXES_ONLY = Habits(box=1.0, click=0.0, mask=0.0, rounds=(1.0,))


@dataclass(frozen=True)
class Plan:
    """How one visit goes: what it begins with, how many masks are asked for, and the seed of all else."""

    start: Start = "box"
    rounds: int = 1
    seed: int = 0
    remembered: float = 0.8


@dataclass(frozen=True, eq=False)
class Round:
    """One answer: logits (L, L) and predicted IoU () with their gradients, and the prompt they answer.

    corrected: what the last click is to correct of the mask before it, (h, w) bool; None where there was no mask.
    """

    logits: Tensor
    iou: Tensor
    prompt: FramePrompt
    corrected: Mask | None

    @property
    def by_box(self) -> bool:
        """Whether it answers a box alone, which a decoder that has learned no clicks could answer too."""
        return self.prompt.box is not None and not len(self.prompt.points)


def draw_plans(count: int, habits: Habits, rng: np.random.Generator) -> list[Plan]:
    """Plans for so many visits."""
    shares = np.array([habits.box, habits.click, habits.mask])
    starts = rng.choice(3, size=count, p=shares / shares.sum())
    lengths = rng.choice(len(habits.rounds), size=count, p=np.array(habits.rounds) / sum(habits.rounds))
    seeds = rng.integers(2**31, size=count)
    names: tuple[Start, ...] = ("box", "click", "mask")
    return [
        Plan(names[start], int(length) + 1, int(seed), habits.remembered)
        for start, length, seed in zip(starts, lengths, seeds, strict=True)
    ]


def habits_with(clicks: float) -> Habits:
    """Habits with such a share of visits that have clicks; half of those begin with one."""
    if not clicks:
        return BOXES_ONLY
    again = clicks / 2 / (1 - clicks / 2)  # of those that begin with a box
    return Habits(box=1 - clicks / 2, click=clicks / 2, mask=0.0, rounds=(1 - again, again))


def plans_of_epoch(samples: int, clicks: float, seed: int, epoch: int) -> list[Plan]:
    """A plan for each sample, the same for a seed and epoch, always. clicks: as for `habits_with`."""
    return draw_plans(samples, habits_with(clicks), np.random.default_rng([seed, epoch, 3]))


def play(
    decode: Decode, target: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], plan: Plan, frame: Frame
) -> Iterator[Round]:
    """Go through a plan. Ends early where nothing is wrong any more.

    decode: answers a prompt. target: share of each logit that the object covers, (h, w), 255 for all; some must be over
    half, or the visit is one box. box: (4,) in frame pixels, used where the plan begins with one.
    """
    rng = np.random.default_rng(plan.seed)
    wanted = target > 127
    if not wanted.any():  # there is nothing to click on
        plan = Plan()
    found = _spoiled(wanted, rng) if plan.start == "mask" else np.zeros_like(wanted)
    clicks: list[Click] = []
    for number in range(plan.rounds):
        corrected = None
        if number or plan.start != "box":
            click = next_click(wanted, found, rng) or (None if number else next_click(wanted, ~wanted, rng))
            if click is None:
                return
            clicks.append(click)
            corrected = region_of(click, wanted, found) if found.any() else None
        soft = None
        if number == 0 or rng.random() < plan.remembered:
            soft = int(rng.integers(1, 4))
        asked = FramePrompt(box if plan.start == "box" else None, *click_arrays(clicks, frame))
        step = click_step(asked, found, frame, soft)
        logits, iou = decode(step.prompt)
        yield Round(logits, iou, step.prompt, corrected)
        found = step.after((logits[: wanted.shape[0], : wanted.shape[1]] > 0).cpu().numpy())


def click_arrays(
    clicks: Sequence[Click], frame: Frame
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Clicks on logits as points (k, 2) in frame pixels and their signs (k,)."""
    pitch = logit_pitch(frame)
    places = np.array([(click.row, click.col) for click in clicks], np.float32).reshape(-1, 2)
    return (places + 0.5) * pitch - 0.5, np.array([click.positive for click in clicks], bool)


def _spoiled(mask: Mask, rng: np.random.Generator) -> Mask:
    """The mask as somebody might have painted it: too wide or too narrow, and a blob missing or too much."""
    times = int(rng.integers(1, SPOILED + 1))
    change = rng.integers(3)
    spoiled = mask
    if change == 0:
        spoiled = ndimage.binary_dilation(mask, iterations=times)
    elif change == 1:
        spoiled = ndimage.binary_erosion(mask, iterations=times)
    bbox = bbox_of(mask)
    assert bbox is not None
    radius = rng.uniform(0.15, 0.5) * max(3, min(bbox.shape))
    rows, cols = np.ogrid[: mask.shape[0], : mask.shape[1]]
    row, col = (rng.integers(each.start, each.stop) for each in bbox.slices)
    blob = (rows - row) ** 2 + (cols - col) ** 2 < radius**2
    result: Mask = spoiled & ~blob if rng.random() < 0.5 else spoiled | blob
    return result
