"""One viewer at work, without Qt: what is embedded next, which prompt is answered from what, what arrives too late.

Three threads take part. The owner's thread calls the public methods and receives every signal. The scheduler's
worker loads the model and encodes. The prompt thread looks embeddings up and decodes, so a prompt on an embedded
plane never waits for the encoder::

    request() -> prompt thread: best field in the cache? -- the box's own ----------> decode -> predicted
                                                         -- a coarser one -> decode -> predicted, and
                                                         -- none -> the scheduler encodes the box's own field
                                                                    -> prompt thread: decode -> predicted

Nothing that a worker found is used when the prompt, the model, the contrast or the plane has changed since: each
object's newest request has a token, and only its answer is taken.

An object that has clicks only says nothing of its size: it is decoded on a field that the view suggests, then on the
field that would answer a box around what was found, until that is the one just seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal, SignalInstance

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding
from napari_medsam.embedding.scheduler import EmbeddingScheduler
from napari_medsam.errors import Cancelled, message_of
from napari_medsam.geometry import Bounds, Box
from napari_medsam.image.field import Field
from napari_medsam.image.plane import Plane
from napari_medsam.model.holder import Loader, ModelHolder, load_here
from napari_medsam.segment.clicks import next_field, reach
from napari_medsam.segment.detail import Blend, detail_fields
from napari_medsam.segment.engine import Replayed, field_of_mask, replay
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Prompt
from napari_medsam.session.lookup import FieldFinder, Seen
from napari_medsam.session.prefetch import NEXT, Outlook, Todo
from napari_medsam.session.requests import Ask, Awaited
from napari_medsam.session.settings import Settings

if TYPE_CHECKING:
    from napari_medsam.document.objects import Document
    from napari_medsam.model.api import Model

PROMPT = 0
"""Priority of a waiting prompt in the encoder's queue; `segment.ahead` has the others."""

PROMPTING_S = 1.5
"""So long after a prompt no field of another slice is begun: more prompts may come."""

Post = Callable[[Callable[[], None]], None]
Then = Callable[[Embedding], None]


class Session:
    """Answers the prompts of one viewer and keeps the encoder busy with what matters next.

    ``post`` runs a function in the owner's thread: a queued Qt signal in the window; at once by default.
    ``load`` builds a model: ``load(name, device=..., backend=..., on_notice=..., progress=..., stopping=...)``; a
    model that offers ``close()`` is closed when it is no longer used, one whose ``alive`` is False is built again.

    Signals, all in the owner's thread: ``predicted(document, id)`` after the document holds the prediction,
    ``failed(document, id, message)``, ``progress(Progress)``, ``shown(plane, hit)`` once the plane on screen is
    embedded, ``shown_failed(plane, message)``, ``model_changed(Model)`` once a model is loaded, ``notice(message)``,
    ``downloading(done, total)`` in bytes while a checkpoint is fetched.
    """

    predicted = Signal(object, int)
    failed = Signal(object, int, str)
    progress = Signal(object)
    shown = Signal(object, bool)
    shown_failed = Signal(object, str)
    model_changed = Signal(object)
    notice = Signal(str)
    downloading = Signal(int, int)

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        cache: EmbeddingCache | None = None,
        post: Post = lambda function: function(),
        load: Loader = load_here,
    ) -> None:
        self.settings = settings or Settings()
        self.cache = EmbeddingCache() if cache is None else cache
        self._post_raw = post
        self._closed = False
        self._generation = 1
        self._awaited = Awaited()
        self._view: tuple[Plane, Bounds] | None = None
        self._holder = ModelHolder(
            load,
            self.settings.choice,
            self._teller(self.model_changed),
            on_notice=self._teller(self.notice),
            progress=self._teller(self.downloading),
        )
        self._finder = FieldFinder(self.cache)
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="medsam-prompt")
        self._scheduler = EmbeddingScheduler(
            self._holder.get, self.cache, on_progress=self._teller(self.progress)
        )

    # the owner's verbs --------------------------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The model the settings ask for, or None while it is not loaded."""
        return self._holder.current

    def warm_up(self) -> None:
        """Load the model in the background, so that the first image need not wait for it."""
        self._prompts_later(self._try_load)

    def configure(self, **changes: Any) -> None:
        """Change settings; what is under way for the old ones is dropped (finished fields stay in the cache)."""
        changed = replace(self.settings, **changes)
        before, self.settings = self.settings, changed
        if replace(before, ahead=changed.ahead) == changed:
            return
        self.cancel()
        if self._holder.choose(changed.choice):
            self.warm_up()

    def show(self, plane: Plane, view: Bounds | None = None, following: Sequence[Plane] = ()) -> None:
        """Embed the plane on screen: whole first, then the fields under ``view`` (r0, c0, r1, c1), middle first.

        A plane that is too large to be read whole is embedded by its fields alone. ``following`` are slices that may
        be looked at next: they come last. Each call drops what is left of the one before.
        """
        self._scheduler.cancel(self._generation)
        self._generation += 1
        self._view = None if view is None else (plane, view)
        settings, generation = self.settings, self._generation
        outlook = Outlook(self._finder.policy, settings.field, settings.ahead)
        screen, later = outlook.on_screen(plane, view), outlook.next_to_it(following, view)
        for number, todo in enumerate([*screen, *later]):
            first = number == 0
            self._prompts_later(partial(self._embed_ahead, todo, settings, generation, first=first))

    def request(self, document: Document, object_ids: Iterable[int], plane: Plane) -> None:
        """Decode some objects of ``plane`` by box and clicks; each answer arrives as ``predicted`` or ``failed``."""
        prompts = {number: said for number in object_ids if (said := document[number].prompt) is not None}
        for object_id, prompt in prompts.items():
            self._awaited.add(document, object_id, prompt, plane)
        if prompts:
            self._scheduler.defer(NEXT, PROMPTING_S)
            self._prompts_later(partial(self._answer, plane, self.settings))

    def peek(self, plane: Plane, box: Box, then: Callable[[Prediction | None], None]) -> None:
        """Decode a box that is still being drawn: ``then(prediction)``, for a look only. None where no field of the
        plane is embedded that could answer it, or the decoder fails."""
        prompt, settings = Prompt(box), self.settings

        def look() -> None:
            found = None
            with suppress(Exception):  # the box itself will tell, once it is drawn
                embedding = self._best(prompt, plane, settings, {})
                if embedding is not None:
                    found = replay(self._holder.get(), embedding, prompt, ()).prediction
            self._post(partial(then, found))

        self._prompts_later(look)

    def withdraw(self, document: Document, object_id: int) -> None:
        """Take back an object's request: its answer, should one arrive, is dropped."""
        self._awaited.withdraw(document, object_id)

    def awaited(self, document: Document) -> list[int]:
        """Return the objects of a document whose answer is still to come."""
        return self._awaited.objects(document)

    def forget(self) -> None:
        """Pixels may have changed: read them again for the next prompt, however large the plane is."""
        self._finder.forget()

    def cancel(self) -> None:
        """Drop everything queued. An encode in work ends on its own and is kept in the cache."""
        self._awaited.clear()
        self._scheduler.cancel(self._generation)  # also what has not reached the encoder's queue yet
        self._generation += 1
        self._scheduler.cancel()
        self.forget()

    def close(self) -> None:
        """Stop both threads and the model; nothing is emitted afterwards. Waits for at most one encode."""
        self.cancel()
        self._closed = True
        self._holder.close()
        self._prompts.shutdown(wait=True, cancel_futures=True)
        self._scheduler.close(timeout=30)

    # the prompt thread --------------------------------------------------------------------------------------

    def _embed_ahead(self, todo: Todo, settings: Settings, generation: int, *, first: bool) -> None:
        if generation != self._generation:
            return
        plane = todo.plane
        try:
            request = self._finder.request(plane, settings.contrast, todo.field, todo.priority, generation)
        except Exception as error:
            if todo.priority < NEXT:  # what is not looked at is nobody's trouble yet
                self._shown_failed(plane, generation, error)
            return
        done = self._scheduler.submit(request)
        if todo.warm:
            done.add_done_callback(self._on_ready)
        if first:
            done.add_done_callback(partial(self._on_shown, plane, generation))

    def _answer(self, plane: Plane, settings: Settings) -> None:
        """Answer each object from the best field in the cache, and have its own field encoded where that is missing."""
        missing: dict[Field, list[Ask]] = {}
        seen: Seen = {}
        for ask in self._awaited.take(plane):
            try:
                if ask.prompt.box is None:
                    self._begin_search(ask, settings, seen)
                    continue
                found = self._best(ask.prompt, plane, settings, seen)
            except Exception as error:
                self._fail([ask], error)
                continue
            box = reach(ask.prompt)
            wanted = self._finder.wanted(box, plane, settings.field)
            detail = 1 if ask.prompt.points else settings.detail
            fine = detail_fields(box, plane.shape, detail, self._finder.policy)
            sharpest = found is not None and found.field == wanted
            if found is not None:
                self._decode([ask], found, last=sharpest and not fine)
            if fine:
                self._answer_in_detail(ask, box, fine, settings)
            elif not sharpest:
                missing.setdefault(wanted, []).append(ask)
        for wanted, asks in missing.items():
            self._embed_then(asks, wanted, settings, partial(self._decode, asks))

    def _answer_in_detail(self, ask: Ask, box: Box, fine: list[Field], settings: Settings) -> None:
        blend = Blend(box, fine, ask.plane.shape)
        for wanted in fine:
            self._embed_then([ask], wanted, settings, partial(self._blend, ask, blend))

    def _begin_search(self, ask: Ask, settings: Settings, seen: Seen) -> None:
        """Decode an object that has clicks only on the first field at hand, else have one encoded."""
        plane = ask.plane
        known = field_of_mask(ask.trail[-1], plane.shape, self._finder.policy)
        view = self._view[1] if self._view is not None and self._view[0] is plane else None
        fields = self._finder.fields_around(reach(ask.prompt), plane, settings.field, known, view)
        found = self._finder.first(self.model, plane, settings.contrast, fields, seen)
        search = partial(self._search, ask, settings, ())
        if found is not None:
            search(found)
        else:
            self._embed_then([ask], fields[0], settings, search)

    def _search(
        self, ask: Ask, settings: Settings, before: tuple[Replayed, ...], embedding: Embedding
    ) -> None:
        """Decode clicks on one more field; the answer that the model trusts most so far is the one to show."""
        if not self._awaited.wants(ask):
            return
        try:
            found = (*before, replay(self._holder.get(), embedding, ask.prompt, ask.trail))
        except Exception as error:
            self._fail([ask], error)
            return
        seen = [one.prediction for one in found]
        field = None
        if settings.field != "whole":
            field = next_field(ask.prompt, seen, ask.plane.shape, self._finder.policy)
        best = max(found, key=lambda one: one.prediction.iou)
        if best is found[-1] or field is None:
            self._post(partial(self._arrived, ask, best, field is None))
        if field is not None:
            self._embed_then([ask], field, settings, partial(self._search, ask, settings, found))

    def _embed_then(self, asks: list[Ask], wanted: Field, settings: Settings, then: Then) -> None:
        """Have a field of their plane encoded, first in line, and go on with it on the prompt thread."""
        try:
            request = self._finder.request(asks[0].plane, settings.contrast, wanted, PROMPT, -1)
        except Exception as error:
            self._fail(asks, error)
        else:
            self._scheduler.submit(request).add_done_callback(partial(self._on_embedded, asks, then))

    def _blend(self, ask: Ask, blend: Blend, embedding: Embedding) -> None:
        """Blend one more field in; the last one makes the mask."""
        if not self._awaited.wants(ask):
            return
        try:
            blend.add(self._holder.get(), embedding)
        except Exception as error:
            self._fail([ask], error)
            return
        if not blend.awaited:
            self._post(partial(self._arrived, ask, Replayed(blend.prediction(), ()), True))

    def _best(self, prompt: Prompt, plane: Plane, settings: Settings, seen: Seen) -> Embedding | None:
        return self._finder.best(self.model, plane, settings.contrast, reach(prompt), settings.field, seen)

    def _decode(self, asks: list[Ask], embedding: Embedding, *, last: bool = True) -> None:
        for ask in asks:
            if not self._awaited.wants(ask):
                continue
            try:
                found = replay(self._holder.get(), embedding, ask.prompt, ask.trail)
            except Exception as error:
                self._fail([ask], error)
            else:
                self._post(partial(self._arrived, ask, found, last))

    def _try_load(self) -> None:
        try:
            with suppress(Cancelled):
                self._holder.get()
        except Exception as error:
            self._post(partial(self.notice.emit, message_of(error, self.settings.model)))

    # the worker thread --------------------------------------------------------------------------------------

    def _on_ready(self, done: Future[Embedding]) -> None:
        """Have the model at hand what the first box in a field would wait for."""
        if done.cancelled() or self._closed or done.exception() is not None:
            return
        model = self.model
        if model is not None:
            model.warm(done.result().features, key=done.result().key)

    def _on_shown(self, plane: Plane, generation: int, done: Future[Embedding]) -> None:
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if error is not None:
            self._shown_failed(plane, generation, error)
        else:
            tell = partial(self.shown.emit, plane, done.result().hit)
            self._post(partial(self._if_current, generation, tell))

    def _shown_failed(self, plane: Plane, generation: int, error: BaseException) -> None:
        tell = partial(self.shown_failed.emit, plane, message_of(error, plane.name))
        self._post(partial(self._if_current, generation, tell))

    def _on_embedded(self, asks: list[Ask], then: Then, done: Future[Embedding]) -> None:
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if error is not None:
            self._fail(asks, error)
        else:
            self._prompts_later(partial(then, done.result()))

    # back in the owner's thread -----------------------------------------------------------------------------

    def _arrived(self, ask: Ask, found: Replayed, last: bool) -> None:
        """Take an answer; one that is not the last leaves the request open for the sharper mask to come."""
        if not self._awaited.wants(ask) or ask.object_id not in ask.document:
            return
        if last:
            self.withdraw(ask.document, ask.object_id)
        ask.document.predicted(ask.object_id, found.prediction, found.trail)
        self.predicted.emit(ask.document, ask.object_id)

    def _refused(self, ask: Ask, message: str) -> None:
        if not self._awaited.wants(ask) or ask.object_id not in ask.document:
            return
        self.withdraw(ask.document, ask.object_id)
        ask.document.update(ask.object_id, problem=message)
        self.failed.emit(ask.document, ask.object_id, message)

    def _if_current(self, generation: int, tell: Callable[[], None]) -> None:
        if generation == self._generation:
            tell()

    def _fail(self, asks: Iterable[Ask], error: BaseException) -> None:
        for ask in asks:
            self._post(partial(self._refused, ask, message_of(error, ask.plane.name)))

    def _prompts_later(self, function: Callable[[], None]) -> None:
        if not self._closed:
            with suppress(RuntimeError):  # closed in this very moment
                self._prompts.submit(function)

    def _teller(self, signal: SignalInstance) -> Callable[..., None]:
        """A function that emits the signal in the owner's thread."""
        return lambda *values: self._post(partial(signal.emit, *values))

    def _post(self, function: Callable[[], None]) -> None:
        self._post_raw(partial(self._unless_closed, function))

    def _unless_closed(self, function: Callable[[], None]) -> None:
        if not self._closed:
            function()
