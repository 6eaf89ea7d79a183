"""The prompt thread's work: requests driven through the engine, from what is embedded and what is yet to be.

For each request the engine (`segment.engine`) says which field it wants next. Where that field's embedding is in the
cache, it goes on at once. Where it is not, the best embedding at hand gives a first answer to look at, the scheduler
embeds the field that is wanted, and the engine goes on when it is there. What is shown first depends on what happens to
be embedded, and on the view; the last answer does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from napari_medsam.embedding.embed import Embedding
from napari_medsam.embedding.scheduler import EmbeddingScheduler
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field
from napari_medsam.image.plane import Plane
from napari_medsam.model.holder import ModelHolder
from napari_medsam.segment.clicks import reach
from napari_medsam.segment.decode import predict
from napari_medsam.segment.engine import (
    Answer,
    Known,
    PromptInput,
    Steps,
    Wanted,
    answer_steps,
    known_masks,
    preview,
)
from napari_medsam.segment.prediction import Prediction
from napari_medsam.session.lookup import FieldLookup, Seen
from napari_medsam.session.requests import Request, Requests
from napari_medsam.session.settings import Settings

PROMPT = 0
"""Priority of a waiting prompt in the encoder's queue; `session.prefetch` has the others."""


@dataclass(eq=False)
class _Course:
    """A request on its way to its mask. Touched by the prompt thread only."""

    request: Request
    settings: Settings
    asked: PromptInput
    known: Known
    steps: Steps
    view: Box | None
    shown: Prediction | None = None
    looked: bool = False
    awaited: Field | None = None
    submitted: set[Field] = field(default_factory=set)
    embedded: dict[Field, Embedding] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answering:
    """Answers requests on the prompt thread.

    later: runs a function on that thread. arrived(request, answer, last) and failed(request, error): what became of a
    request; an answer that is not the last will be followed by a better one.
    """

    holder: ModelHolder
    lookup: FieldLookup
    scheduler: EmbeddingScheduler
    requests: Requests
    later: Callable[[Callable[[], None]], None]
    arrived: Callable[[Request, Answer, bool], None]
    failed: Callable[[Request, BaseException], None]

    def answer(self, requests: Iterable[Request], settings: Settings, view: Box | None) -> None:
        """Begin to answer requests for objects of one plane. view: what is on screen of it."""
        seen: Seen = {}
        for request in requests:
            asked = PromptInput(
                request.prompt,
                request.plane,
                request.masks_before,
                settings.field,
                settings.detail,
                self.lookup.policy,
            )
            known = known_masks(request.masks_before)
            steps = answer_steps(self.holder.get, asked, known)
            self._go_on(_Course(request, settings, asked, known, steps, view), None, seen)

    def look(self, box: Box, plane: Plane, settings: Settings) -> Prediction | None:
        """What a box gives on the best field at hand; None where there is none."""
        model = self.holder.current
        embedding = self.lookup.best(model, plane, settings.contrast, box, settings.field, {})
        return None if embedding is None else predict(self.holder.get(), embedding, [box])[0]

    def _go_on(self, course: _Course, embedding: Embedding | None, seen: Seen) -> None:
        """Take the steps for which there are embeddings; then show what there is, and have the next one made."""
        if not self.requests.wants(course.request):
            return
        try:
            wanted = next(course.steps) if embedding is None else course.steps.send(embedding)
            while (found := self._at_hand(course, wanted, seen)) is not None:
                wanted = course.steps.send(found)
            self._show(course, wanted, seen)
            self._embed(course, wanted)
        except StopIteration as end:
            self.arrived(course.request, end.value, True)
        except Exception as error:
            self.failed(course.request, error)

    def _at_hand(self, course: _Course, wanted: Wanted, seen: Seen) -> Embedding | None:
        # The fields of a detail are left to the scheduler, cached or not: this thread is there for all prompts.
        if wanted.ahead or wanted.field in course.submitted:
            return self._hand_out(course, wanted.field)
        return self._first(course, [wanted.field], seen)

    def _show(self, course: _Course, wanted: Wanted, seen: Seen) -> None:
        """Show a first answer while its better one is on its way; another one only where the model trusts it more."""
        found = None if wanted.so_far is None else Answer(wanted.so_far, wanted.masks_before)
        if not course.looked:
            course.looked = True
            embedding = self._first(course, self._fields_at_hand(course), seen)
            if embedding is not None:
                found = preview(self.holder.get, course.asked, wanted, embedding, course.known)
        if found is not None and (course.shown is None or found.prediction.iou > course.shown.iou):
            course.shown = found.prediction
            self.arrived(course.request, found, False)

    def _fields_at_hand(self, course: _Course) -> Iterator[Field]:
        """The fields that could answer a prompt for now, the best first."""
        asked, choice = course.asked, course.settings.field
        around = reach(asked.prompt)
        if asked.prompt.box is not None:
            fields = self.lookup.fields_for(around, asked.plane, choice)
        else:
            last = asked.masks_before[-1].prediction if asked.masks_before else None
            known = None if last is None else last.field
            fields = iter(self.lookup.fields_around(around, asked.plane, choice, known, course.view))
        return (field for field in fields if field.box.contains(around))

    def _first(self, course: _Course, fields: Iterable[Field], seen: Seen) -> Embedding | None:
        request, contrast = course.request, course.settings.contrast
        return self.lookup.first(self.holder.current, request.plane, contrast, fields, seen)

    def _embed(self, course: _Course, wanted: Wanted) -> None:
        """Have the fields that are wanted encoded, first in line, and go on with them on this thread."""
        plane, contrast = course.request.plane, course.settings.contrast
        course.awaited = wanted.field
        for region in (wanted.field, *wanted.ahead):
            if region not in course.submitted:
                course.submitted.add(region)
                done = self.scheduler.submit(self.lookup.request(plane, contrast, region, PROMPT, -1))
                done.add_done_callback(partial(self._on_embedded, course))

    def _on_embedded(self, course: _Course, done: Future[Embedding]) -> None:
        """On the scheduler's thread."""
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self.failed(course.request, error)
        else:
            self.later(partial(self._take, course, done.result()))

    def _take(self, course: _Course, embedding: Embedding) -> None:
        """Go on with the field that is awaited; one that comes before its turn is kept until then."""
        course.embedded[embedding.field] = embedding
        if embedding.field == course.awaited:
            self._go_on(course, self._hand_out(course, embedding.field), {})

    def _hand_out(self, course: _Course, region: Field) -> Embedding | None:
        embedding = course.embedded.pop(region, None)
        if embedding is not None:
            course.submitted.discard(region)
        return embedding
