"""Teach a box decoder clicks, on embedded lessons: `teach` goes through steps, `_draw` makes a visit.

As in SAM's own training (arXiv 2304.02643, appendix A): a box or a click first, then clicks where the mask is wrong,
each shown with the mask before it. What a click corrects counts on its own, and answers to boxes are kept near those of
the decoder that was released, as far as that one was right: a step is the one of `finetune.trained_decoder`.
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
from napari_medsam.finetune.trained_decoder import TrainedDecoder, Visit
from napari_medsam.geometry import bbox_of
from napari_medsam.image.field import Frame
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.networks.weights import build_decoder
from napari_medsam_training.interactive.fields import Lesson

MOST_LESSONS = 250  # of a source count; more of one teach little that is new
RECENT = 200  # visits whose mean loss is reported


@dataclass(frozen=True)
class Recipe(FinetuneConfig):
    """The settings of the lessons: those of a training run, some with other values, and two of their own."""

    visits: int = 10_000  # one is a sequence of one to four answers about an object
    batch: int = 8
    learning_rate: float | None = 2e-4
    warmup: float = 0.03
    cross_entropy: float = 2.0
    keep_base: float = field(default=1.0, metadata={"alias": "hold"})
    average: float = 0.995  # decay of the running mean of the weights, which is what is kept
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True)
class Reached:
    """Where teaching is: visits done and the mean loss of the last ones."""

    visits: int
    loss: float


class Teacher:
    """Teaches a decoder. `teach` yields where it is, `average` is the decoder to keep."""

    def __init__(
        self, released: dict[str, Tensor], lessons: Sequence[Lesson], frame: Frame, recipe: Recipe
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.trained = TrainedDecoder(
            _copy(released, frame), frame, recipe, knows_clicks=True, answers_loss=_longer_visits_weigh_more
        )
        self.average = _copy(released, frame).eval().requires_grad_(False)
        self._by_source: dict[str, list[Lesson]] = {}
        for lesson in lessons:
            if not lesson.held:
                self._by_source.setdefault(lesson.source, []).append(lesson)
        self._sources = sorted(self._by_source)
        sizes = np.array([min(len(self._by_source[name]), MOST_LESSONS) for name in self._sources])
        self._shares = np.sqrt(sizes) / np.sqrt(sizes).sum()

    def teach(self) -> Iterator[Reached]:
        """All steps, one after the other."""
        recipe = self.recipe
        recent: list[float] = []
        steps = recipe.visits // recipe.batch
        for number in range(steps):
            rng = np.random.default_rng([recipe.seed, number])
            visits = [self._draw(rng, plan) for plan in draw_plans(recipe.batch, recipe.habits, rng)]
            step = self.trained.step(visits, recipe.rate_at(number, steps), f"step {number + 1}")
            recent = [*recent, *step.losses][-RECENT:]
            self._keep_average(number)
            yield Reached((number + 1) * recipe.batch, float(np.mean(recent)))

    def _draw(self, rng: np.random.Generator, plan: Plan) -> Visit:
        """A visit to one of the objects of a lesson, both drawn, and a box around it."""
        lessons = self._by_source[self._sources[rng.choice(len(self._sources), p=self._shares)]]
        lesson = lessons[rng.integers(len(lessons))]
        target = lesson.objects[int(rng.integers(len(lesson.objects)))]
        bbox = bbox_of(target > 127)
        assert bbox is not None
        sides = np.array([bbox[2] - bbox[0], bbox[3] - bbox[1]] * 2)
        moved = np.array(bbox) + np.array([-1, -1, 1, 1]) * rng.uniform(*self.recipe.jitter, size=4) * sides
        box = np.clip(moved, 0, [*target.shape, *target.shape]).astype(np.float32)
        return Visit(lesson.features, target, box, plan)

    @torch.no_grad()
    def _keep_average(self, number: int) -> None:
        decay = min(self.recipe.average, (number + 1) / (number + 10))
        pairs = zip(
            self.average.mask_decoder.parameters(),
            self.trained.decoder.mask_decoder.parameters(),
            strict=True,
        )
        for mean, value in pairs:
            mean.lerp_(value, 1 - decay)


def _longer_visits_weigh_more(losses: Tensor) -> Tensor:
    return losses.sum() / math.sqrt(len(losses))


def _copy(state: dict[str, Tensor], frame: Frame) -> SamDecoder:
    return build_decoder({name: value.clone() for name, value in state.items()}, frame.size, "a copy")
