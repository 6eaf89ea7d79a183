"""One viewer at work, without Qt: what is embedded next, which prompt is answered from what, what arrives too late.

Three threads take part. The owner's thread calls the public methods and receives every signal. The scheduler's
worker loads the model and encodes. The prompt thread looks embeddings up and decodes, so a prompt on an embedded
plane never waits for the encoder::

    request() -> prompt thread: is the field in the cache that the engine wants?
                    yes -> decode -> predicted, or the next field
                    no  -> the best one at hand -> decode -> predicted, a first answer
                           the scheduler encodes the one wanted -> prompt thread: decode -> predicted

Nothing that a worker found is used when the prompt, the model, the contrast or the plane has changed since: each
object's newest request has a token, and only its answer is taken. `session.answering` has the prompt thread's work.
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
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane
from napari_medsam.model.holder import Loader, ModelHolder, load_here
from napari_medsam.segment.engine import Answer
from napari_medsam.segment.prediction import Prediction
from napari_medsam.session.answering import Answering
from napari_medsam.session.lookup import FieldLookup
from napari_medsam.session.prefetch import NEXT, Prefetch, Todo
from napari_medsam.session.requests import Request, Requests
from napari_medsam.session.settings import Settings

if TYPE_CHECKING:
    from napari_medsam.document.objects import Document, PartKey
    from napari_medsam.model.api import Model

PROMPTING_S = 1.5
"""So long after a prompt no field of another slice is begun: more prompts may come."""

Post = Callable[[Callable[[], None]], None]


class Session:
    """Answers the prompts of one viewer and keeps the encoder busy with what matters next.

    ``post`` runs a function in the owner's thread: a queued Qt signal in the window; at once by default.
    ``load`` builds a model: ``load(name, device=..., backend=..., on_notice=..., progress=..., stopping=...)``; a
    model that offers ``close()`` is closed when it is no longer used, one whose ``alive`` is False is built again.

    Signals, all in the owner's thread: ``predicted(document, part)`` after the document holds the prediction,
    ``failed(document, part, message)``, both with the part's key, ``progress(Progress)``, ``shown(plane, hit)`` once
    the plane on screen is embedded, ``shown_failed(plane, message)``, ``model_changed(Model)`` once a model is loaded,
    ``notice(message)``, ``downloading(done, total)`` in bytes while a checkpoint is fetched.
    """

    predicted = Signal(object, object)
    failed = Signal(object, object, str)
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
        self._requests = Requests()
        self._view: tuple[Plane, Box] | None = None
        self._holder = ModelHolder(
            load,
            self.settings.choice,
            self._teller(self.model_changed),
            on_notice=self._teller(self.notice),
            progress=self._teller(self.downloading),
        )
        self._lookup = FieldLookup(self.cache)
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="medsam-prompt")
        self._scheduler = EmbeddingScheduler(
            self._holder.get, self.cache, on_progress=self._teller(self.progress)
        )
        self._answering = Answering(
            self._holder,
            self._lookup,
            self._scheduler,
            self._requests,
            self._prompts_later,
            arrived=lambda *what: self._post(partial(self._arrived, *what)),
            failed=lambda *what: self._post(partial(self._refused, *what)),
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

    def show(self, plane: Plane, view: Box | None = None, following: Sequence[Plane] = ()) -> None:
        """Embed the plane on screen: whole first, then the fields under ``view`` (r0, c0, r1, c1), middle first.

        A plane that is too large to be read whole is embedded by its fields alone. ``following`` are slices that may
        be looked at next: they come last. Each call drops what is left of the one before.
        """
        self._scheduler.cancel(self._generation)
        self._generation += 1
        self._view = None if view is None else (plane, view)
        settings, generation = self.settings, self._generation
        prefetch = Prefetch(self._lookup.policy, settings.field, settings.ahead)
        screen, later = prefetch.on_screen(plane, view), prefetch.next_to_it(following, view)
        for number, todo in enumerate([*screen, *later]):
            first = number == 0
            self._prompts_later(partial(self._embed_ahead, todo, settings, generation, first=first))

    def request(self, document: Document, parts: Iterable[PartKey], plane: Plane) -> None:
        """Decode some parts on ``plane`` by box and clicks; each answer arrives as ``predicted`` or ``failed``."""
        prompts = {key: prompt for key in parts if (prompt := document.part(*key).prompt) is not None}
        for key, prompt in prompts.items():
            self._requests.add(document, key, prompt, plane)
        if prompts:
            self._scheduler.defer(NEXT, PROMPTING_S)
            view = self._view[1] if self._view is not None and self._view[0] is plane else None
            self._prompts_later(partial(self._answer, plane, self.settings, view))

    def peek(self, plane: Plane, box: Box, then: Callable[[Prediction | None], None]) -> None:
        """Decode a box that is still being drawn: ``then(prediction)``, for a look only. None where no field of the
        plane is embedded that could answer it, or the decoder fails."""
        settings = self.settings

        def look() -> None:
            found = None
            with suppress(Exception):  # the box itself will tell, once it is drawn
                found = self._answering.look(box, plane, settings)
            self._post(partial(then, found))

        self._prompts_later(look)

    def withdraw(self, document: Document, part: PartKey) -> None:
        """Take back a part's request: its answer, should one arrive, is dropped."""
        self._requests.withdraw(document, part)

    def awaited(self, document: Document) -> list[PartKey]:
        """Return the parts in a document whose answer is still to come."""
        return self._requests.parts(document)

    def forget(self) -> None:
        """Pixels may have changed: read them again for the next prompt, however large the plane is."""
        self._lookup.forget()

    def cancel(self) -> None:
        """Drop everything queued. An encode in work ends on its own and is kept in the cache."""
        self._requests.clear()
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
            request = self._lookup.request(plane, settings.contrast, todo.field, todo.priority, generation)
        except Exception as error:
            if todo.priority < NEXT:  # what is not looked at is nobody's trouble yet
                self._shown_failed(plane, generation, error)
            return
        done = self._scheduler.submit(request)
        if todo.warm:
            done.add_done_callback(self._on_ready)
        if first:
            done.add_done_callback(partial(self._on_shown, plane, generation))

    def _answer(self, plane: Plane, settings: Settings, view: Box | None) -> None:
        self._answering.answer(self._requests.take(plane), settings, view)

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

    # back in the owner's thread -----------------------------------------------------------------------------

    def _arrived(self, request: Request, answer: Answer, last: bool) -> None:
        """Take an answer; one that is not the last leaves the request open for the better one to come."""
        document, part = request.document, request.part
        if not self._requests.wants(request) or document.get_part(*part) is None:
            return
        if last:
            self.withdraw(document, part)
        document.predicted(*part, answer.prediction, answer.masks_before)
        self.predicted.emit(document, part)

    def _refused(self, request: Request, error: BaseException) -> None:
        document, part = request.document, request.part
        if not self._requests.wants(request) or document.get_part(*part) is None:
            return
        self.withdraw(document, part)
        message = message_of(error, request.plane.name)
        document.update_part(*part, problem=message)
        self.failed.emit(document, part, message)

    def _if_current(self, generation: int, tell: Callable[[], None]) -> None:
        if generation == self._generation:
            tell()

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
