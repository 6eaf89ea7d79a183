"""The one engine that answers a prompt, step by step: it says which field it wants next, or what the mask is.

It reads no pixels and starts no threads. A driver hands it the embedding of the field it wants and goes on: at once,
as the Python API and the command line do (`answer_prompts`), or whenever the embedding is there, as the window's
session does. Both get the same mask, since it depends on the prompt, the model, the pixels, and the choice of field and
detail alone::

    box ────────── its field, or the fields of its detail ──┐
    lone click ─── fields are tried, from the plane on ─────┼─> each further click: its field, and the mask before it
    painted mask ───────────────────────────────────────────┘

Each click is answered from the mask before it, in the order in which they were made. So the mask after some clicks is
what it would be had the later ones never been made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.clicks import answer, check_learned, click_field, lone_click, reach
from napari_medsam.segment.decode import predict
from napari_medsam.segment.detail import Blend, detail_fields
from napari_medsam.segment.fields import (
    DEFAULT_POLICY,
    WHOLE_UP_TO,
    FieldPolicy,
    field_of,
    grid_field,
    shown_whole,
)
from napari_medsam.segment.prediction import Prediction, Step
from napari_medsam.segment.prompt import Prompt

if TYPE_CHECKING:
    from napari_medsam.embedding.embed import Embedding
    from napari_medsam.model.api import Model


@dataclass(frozen=True, eq=False)
class MaskBefore:
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


ClickHistory = tuple[MaskBefore, ...]
"""The mask before each of an object's clicks, in their order."""

Known = dict[Step, Prediction]
"""What need not be decoded again."""


@dataclass(frozen=True, eq=False)
class PromptInput:
    """All that the mask of an object depends on, beside the model and the pixels.

    prompt: checked against the plane (`Prompt.check`), its clicks in the order in which they were made. plane: only its
    size counts here. masks_before: those that a person painted count; predicted ones spare decoding them again, where
    they are still what they would be. choice: "auto", "whole" or a field. detail: see `segment.detail`, for boxes.
    """

    prompt: Prompt
    plane: Plane
    masks_before: ClickHistory = ()
    choice: str | Field = "auto"
    detail: int = 1
    policy: FieldPolicy = DEFAULT_POLICY


@dataclass(frozen=True, eq=False)
class Answer:
    """The mask after the last click, and those before each of them."""

    prediction: Prediction
    masks_before: ClickHistory


@dataclass(frozen=True, eq=False)
class Wanted:
    """The engine needs the embedding of a field.

    ahead: fields that it will want after it, in this order. box: set where the field is for a box alone. so_far: what
    answers the whole prompt until then, where something does. masks_before: what is known of them; the first
    `known` of them, and the one at that place, need not be found again.
    """

    field: Field
    ahead: tuple[Field, ...] = ()
    box: Box | None = None
    so_far: Prediction | None = None
    masks_before: ClickHistory = ()
    known: int = -1


Steps = Generator[Wanted, "Embedding", Answer]


def answer_steps(model: Callable[[], Model], asked: PromptInput, known: Known | None = None) -> Steps:
    """Answer one prompt: yields what is wanted, takes its embedding, returns the answer.

    model: gives the model, once there is something to decode. known: masks that need not be decoded again; what is
    found joins them. Raises PromptError for clicks that the decoder has not learned, or outside a chosen field, and
    ModelError when it fails.
    """
    return _Course(model, asked, {} if known is None else known).run()


def answer_prompts(
    model: Model, asked: Sequence[PromptInput], embed: Callable[[Field], Embedding]
) -> list[Answer]:
    """Answer prompts on one plane, one after the other. embed: embeds a field of it, or looks it up.

    Where several wait for a field it is embedded once, and boxes on it are decoded together.
    """
    known: Known = {}
    courses = [answer_steps(lambda: model, one, known) for one in asked]
    answers: dict[int, Answer] = {}
    waiting: dict[Field, dict[int, Wanted]] = {}

    def go_on(number: int, embedding: Embedding | None = None) -> None:
        course = courses[number]
        try:
            wanted = next(course) if embedding is None else course.send(embedding)
        except StopIteration as end:
            answers[number] = end.value
        else:
            waiting.setdefault(wanted.field, {})[number] = wanted

    for number in range(len(asked)):
        go_on(number)
    while waiting:
        # Blends ask for their fields in this order too, so those that overlap meet at each field.
        chosen = min(waiting, key=_field_order)
        members, embedding = waiting.pop(chosen), embed(chosen)
        boxes = dict.fromkeys(wanted.box for wanted in members.values() if wanted.box is not None)
        new = [box for box in boxes if Step(Prompt(box), (chosen,), embedding.key) not in known]
        _remember(known, predict(model, embedding, new))
        for number in members:
            go_on(number, embedding)
    return [answers[number] for number in range(len(asked))]


def preview(
    model: Callable[[], Model], asked: PromptInput, wanted: Wanted, embedding: Embedding, known: Known
) -> Answer:
    """What can be shown until the wanted field is embedded: the rest of the prompt, answered on a field at hand."""
    masks = [*wanted.masks_before]
    if 0 <= wanted.known < len(masks):
        masks[wanted.known] = MaskBefore(painted=masks[wanted.known].patch)
    at_hand = replace(asked, masks_before=tuple(masks), choice=embedding.field, detail=1)
    course = answer_steps(model, at_hand, dict(known))
    try:
        next(course)
        while True:
            course.send(embedding)
    except StopIteration as end:
        return Answer(end.value.prediction, wanted.masks_before)


def known_masks(masks_before: ClickHistory) -> Known:
    """The predictions of a history by what they were decoded from; none that are out of date."""
    known: Known = {}
    for mask in masks_before:
        if mask.prediction is not None and mask.prediction.key:
            _remember(known, (mask.prediction, *mask.prediction.others))
    return known


def painted_only(masks_before: ClickHistory) -> ClickHistory:
    """A history of which only what a person painted still holds: with another decoder, say."""
    return tuple(MaskBefore(painted=mask.painted) for mask in masks_before)


class _Course:
    """One prompt on its way to its mask."""

    def __init__(self, model: Callable[[], Model], asked: PromptInput, known: Known) -> None:
        self.model = model
        self.asked = asked
        self.known = known
        known.update(known_masks(asked.masks_before))
        points = asked.prompt.points
        self.masks = [*asked.masks_before, *(MaskBefore() for _ in points)][: len(points)]
        self.embedding: Embedding | None = None

    def run(self) -> Steps:
        prompt = self.asked.prompt
        mask: Prediction | Patch
        painted = [(number, old.painted) for number, old in enumerate(self.masks) if old.painted is not None]
        if painted:
            number, mask = painted[-1]
        elif prompt.box is not None:
            number, mask = 0, (yield from self._box(prompt.box))
        else:
            number = 1 + [point.positive for point in prompt.points].index(True)
            self.masks[:number] = [MaskBefore()] * number
            mask = yield from self._search(replace(prompt, points=prompt.points[:number]))
        while number < len(prompt.points):
            if isinstance(mask, Prediction):
                self.masks[number] = MaskBefore(mask)
            mask = yield from self._click(replace(prompt, points=prompt.points[: number + 1]), mask)
            number += 1
        assert isinstance(mask, Prediction)  # a painted mask has a click after it
        return Answer(mask, tuple(self.masks))

    def _box(self, box: Box) -> Generator[Wanted, Embedding, Prediction]:
        asked, alone = self.asked, Prompt(box)
        shape = asked.plane.shape
        fine = sorted(detail_fields(box, shape, asked.detail, asked.policy), key=_field_order)
        if not fine:
            embedding = yield from self._embedded(field_of(asked.choice, box, shape, asked.policy), box=box)
            return self._decode(embedding, alone)
        # The embeddings of a mask that is known are not looked up again, pixel by pixel: there are hundreds.
        step = Step(alone, tuple(fine), "")
        if step not in self.known:
            blend = Blend(box, fine, shape)
            for number, part in enumerate(fine):
                # Always in the same order: a sum of floats depends on it.
                embedding = yield from self._embedded(part, ahead=tuple(fine[number + 1 :]))
                blend.add(self._model(), embedding)
            _remember(self.known, [replace(blend.prediction(), step=step)])
        return self.known[step]

    def _search(self, prompt: Prompt) -> Generator[Wanted, Embedding, Prediction]:
        """A lone click, the first on the object: try fields, from the whole plane on."""
        asked = self.asked
        search = lone_click(prompt, _start(asked, prompt), asked.plane.shape, asked.policy)
        best: Prediction | None = None
        try:
            wanted = next(search)
            while True:
                so_far = best if prompt == asked.prompt else None
                embedding = yield from self._embedded(wanted, so_far=so_far)
                found = self._decode(embedding, prompt)
                best = found if best is None else max(best, found, key=lambda one: one.iou)
                if asked.choice != "auto":
                    return found
                wanted = search.send(found)
        except StopIteration as end:
            best, *others = end.value
        if best.others != tuple(
            others
        ):  # kept as it is otherwise: what follows was found from this very mask
            best = replace(best, others=tuple(others))
            _remember(self.known, [best])
        return best

    def _click(self, prompt: Prompt, mask: Prediction | Patch) -> Generator[Wanted, Embedding, Prediction]:
        """The newest click of a prompt, on the mask before it."""
        asked, click = self.asked, prompt.points[-1]
        shape = asked.plane.shape
        if prompt.box is None and asked.choice == "auto":
            wanted = click_field(prompt, mask, shape, asked.policy)
        else:
            wanted = field_of(asked.choice, reach(prompt), shape, asked.policy)
        if not wanted.box.contains(click.pixel):
            raise PromptError(f"{click} lies outside the field that was chosen. Choose the field 'auto'.")
        embedding = yield from self._embedded(wanted, known=len(prompt.points) - 1)
        return self._decode(embedding, prompt, mask)

    def _embedded(
        self,
        wanted: Field,
        *,
        ahead: tuple[Field, ...] = (),
        box: Box | None = None,
        so_far: Prediction | None = None,
        known: int = -1,
    ) -> Generator[Wanted, Embedding, Embedding]:
        if self.embedding is None or self.embedding.field != wanted:
            self.embedding = yield Wanted(wanted, ahead, box, so_far, tuple(self.masks), known)
        return self.embedding

    def _decode(
        self, embedding: Embedding, prompt: Prompt, mask: Prediction | Patch | None = None
    ) -> Prediction:
        model = self._model()
        step = Step(prompt, (embedding.field,), embedding.key, mask)
        if step not in self.known:
            if prompt.points:
                patch = mask.patch if isinstance(mask, Prediction) else mask
                found = answer(model, embedding, prompt, patch)
            else:
                assert prompt.box is not None
                [found] = predict(model, embedding, [prompt.box])
            _remember(self.known, [replace(found, step=step)])
        return self.known[step]

    def _model(self) -> Model:
        model = self.model()
        if self.asked.prompt.points:
            check_learned(model)
        return model


def _remember(known: Known, found: Iterable[Prediction]) -> None:
    known.update({prediction.step: prediction for prediction in found if prediction.step is not None})


def _start(asked: PromptInput, prompt: Prompt) -> Field:
    """Where a lone click is looked for first: on the whole plane, or as much of it as can be read in a moment."""
    if asked.choice != "auto":
        return field_of(asked.choice, reach(prompt), asked.plane.shape, asked.policy)
    if shown_whole(asked.plane):
        return whole_field(asked.plane.shape)
    side = int(WHOLE_UP_TO**0.5)
    return grid_field(reach(prompt), asked.plane.shape, replace(asked.policy, smallest=side))


def _field_order(region: Field) -> tuple[int, int, int, int]:
    return region.height, region.width, region.row, region.col
