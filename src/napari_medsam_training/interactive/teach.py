"""Teach a box decoder clicks, on embedded lessons. Read from the top: `teach` goes through steps, `_visit` through one.

As in SAM's own training (arXiv 2304.02643, appendix A): a box or a click first, then clicks where the mask is wrong,
each shown with the mask before it. New here: what a click corrects counts on its own, and answers
to boxes are held to the decoder that was released, as far as that one was right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.simulated_user import Habits, Plan, draw_plans
from napari_medsam.finetune.step import Gradient, VisitLoss, not_finite, set_rate, take_step
from napari_medsam.geometry import bbox_of
from napari_medsam.image.field import Frame
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.networks.weights import build_decoder
from napari_medsam.model.runtime.threads import map_single_threaded
from napari_medsam_training.interactive.fields import Lesson

MOST_LESSONS = 250  # of a source count; more of one teach little that is new


@dataclass(frozen=True)
class Recipe:
    """Every knob of the lessons."""

    seed: int = 0
    visits: int = 10_000  # one is a sequence of one to four answers about an object
    batch: int = 8  # visits whose gradients are averaged into one step
    learning_rate: float = 2e-4  # of AdamW, at the peak; cosine to a fiftieth
    warmup: float = 0.03  # share of the steps
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of a step's gradient
    dice: float = 1.0  # weight of the Dice loss
    cross_entropy: float = 2.0  # weight of the pixelwise cross-entropy
    iou: float = 0.5  # weight of the squared error of the predicted IoU
    correction: float = 0.5  # weight of the cross-entropy of the region that a click corrects
    distillation: float = 1.0  # pull of the released decoder's answer to a box, times the IoU of that answer
    jitter: tuple[float, float] = (
        -0.02,
        0.1,
    )  # each edge of a box moves outwards by such a share of its side
    average: float = 0.995  # decay of the running mean of the weights, which is what is kept
    half: bool = True  # compute in bfloat16 where torch may; the weights stay float32
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True)
class Step:
    """Where teaching is: visits done and the mean loss of the last answers."""

    visits: int
    loss: float


class Teacher:
    """Teaches a decoder. `teach` yields its steps, `average` is the decoder to keep."""

    def __init__(
        self, released: dict[str, Tensor], lessons: Sequence[Lesson], frame: Frame, recipe: Recipe
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self._frame = recipe, frame
        weights = FinetuneConfig(
            dice=recipe.dice,
            cross_entropy=recipe.cross_entropy,
            iou=recipe.iou,
            correction=recipe.correction,
            keep_base=recipe.distillation,
        )
        self._visits = VisitLoss(_copy(released, frame).train(), frame, weights, recipe.half)
        self.average = _copy(released, frame).eval().requires_grad_(False)
        self._by_source: dict[str, list[Lesson]] = {}
        for lesson in lessons:
            if not lesson.held:
                self._by_source.setdefault(lesson.source, []).append(lesson)
        self._sources = sorted(self._by_source)
        sizes = np.array([min(len(self._by_source[name]), MOST_LESSONS) for name in self._sources])
        self._shares = np.sqrt(sizes) / np.sqrt(sizes).sum()
        self._optimiser = torch.optim.AdamW(
            self._visits.learned, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def teach(self) -> Iterator[Step]:
        """All steps, one after the other."""
        steps = self.recipe.visits // self.recipe.batch
        recent: list[float] = []
        for number in range(steps):
            self._set_rate(number / steps)
            recent = [*recent, *self._step(number)][-400:]
            self._keep_average(number)
            yield Step((number + 1) * self.recipe.batch, float(np.mean(recent)))

    def _step(self, number: int) -> list[float]:
        rng = np.random.default_rng([self.recipe.seed, number])
        plans = draw_plans(self.recipe.batch, self.recipe.habits, rng)
        visits = [(*self._draw(rng), plan) for plan in plans]
        losses, gradients = zip(*map_single_threaded(self._visit, visits), strict=True)
        if not take_step(self._optimiser, self._visits.learned, gradients, self.recipe.clip):
            mean = float(np.mean([loss for own in losses for loss in own]))
            raise not_finite(mean, f"step {number + 1}", self.recipe.learning_rate)
        return [loss for own in losses for loss in own]

    def _draw(self, rng: np.random.Generator) -> tuple[Lesson, int, np.ndarray]:
        """A lesson, one of its objects, and a box around that one in frame pixels."""
        lessons = self._by_source[self._sources[rng.choice(len(self._sources), p=self._shares)]]
        lesson = lessons[rng.integers(len(lessons))]
        number = int(rng.integers(len(lesson.objects)))
        target = lesson.objects[number]
        bbox = bbox_of(target > 127)
        assert bbox is not None
        sides = np.array([bbox[2] - bbox[0], bbox[3] - bbox[1]] * 2)
        moved = np.array(bbox) + np.array([-1, -1, 1, 1]) * rng.uniform(*self.recipe.jitter, size=4) * sides
        return lesson, number, np.clip(moved, 0, [*target.shape, *target.shape]).astype(np.float32)

    def _visit(self, drawn: tuple[Lesson, int, np.ndarray, Plan]) -> tuple[list[float], Gradient]:
        """The losses of all answers about one object, and their gradient."""
        lesson, number, box, plan = drawn
        features = torch.from_numpy(lesson.features.astype(np.float32))
        losses = self._visits.answers(features, lesson.objects[number], box, plan)
        gradient = self._visits.gradient(losses.sum() / math.sqrt(len(losses)))
        return losses.detach().tolist(), gradient

    def _set_rate(self, done: float) -> None:
        share = min(1.0, (done + 1e-9) / self.recipe.warmup) * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))
        )
        set_rate(self._optimiser, self.recipe.learning_rate * share)

    @torch.no_grad()
    def _keep_average(self, number: int) -> None:
        decay = min(self.recipe.average, (number + 1) / (number + 10))
        pairs = zip(
            self.average.mask_decoder.parameters(),
            self._visits.decoder.mask_decoder.parameters(),
            strict=True,
        )
        for mean, value in pairs:
            mean.lerp_(value, 1 - decay)


def _copy(state: dict[str, Tensor], frame: Frame) -> SamDecoder:
    return build_decoder({name: value.clone() for name, value in state.items()}, frame.size, "a copy")
