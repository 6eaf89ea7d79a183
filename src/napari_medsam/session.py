"""One viewer at work, without Qt: what is embedded next, which prompt is answered from what, what arrives too late.

Three threads take part. The owner's thread calls the public methods and receives every signal. The scheduler's
worker loads the model and encodes. The prompt thread looks embeddings up and decodes, so a prompt on an embedded
plane never waits for the encoder::

    request() -> prompt thread: embedding in the cache? -- yes --> decode -> post -> predicted
                                                        -- no ---> scheduler (first in line) -> prompt thread: decode

Nothing that a worker found is used when the prompt, the model, the contrast or the plane has changed since: each
object's newest request has a token, and only its answer is taken.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.scheduler import Embedding, EmbeddingScheduler, FieldRequest, Progress, embed
from napari_medsam.errors import Cancelled, MedSAMError, ModelError
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.plane import Plane
from napari_medsam.segment.predict import Prediction, predict

if TYPE_CHECKING:
    from napari_medsam.document.objects import Document
    from napari_medsam.model.protocol import Model
    from napari_medsam.segment.prompt import Box

PROMPT, SHOWN, AHEAD = 0, 10, 20
"""Priorities of the encoder's queue: a waiting prompt, what is on screen, what may be looked at next."""

REUSE_ABOVE = 2**21
"""Planes of more pixels than this are not read again for every prompt; see ``Session.forget``."""

Loader = Callable[..., "Model"]
Post = Callable[[Callable[[], None]], None]


@dataclass(frozen=True)
class Settings:
    """What the user chose: a registry name or checkpoint file, the device, the encoder backend, the contrast."""

    model: str = "lite-medsam"
    device: str = "auto"
    backend: str = "auto"
    contrast: Contrast = field(default_factory=Contrast)


@dataclass(frozen=True, eq=False)
class _Ask:
    document: Document
    object_id: int
    box: Box
    plane: Plane
    token: int


def _call_now(function: Callable[[], None]) -> None:
    function()


def _build(name: str, **options: Any) -> Model:
    """Load in this process, which cannot be stopped half-way."""
    from napari_medsam.model.medsam import build_model

    del options["stopping"]
    return build_model(name, **options)


class Session:
    """Answers the prompts of one viewer and keeps the encoder busy with what matters next.

    ``post`` runs a function in the owner's thread (a queued Qt signal in the window; at once by default).
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
        post: Post = _call_now,
        load: Loader = _build,
    ) -> None:
        self.settings = settings or Settings()
        self.cache = EmbeddingCache() if cache is None else cache
        self._post_raw = post
        self._load = load
        self._closed = False
        self._generations = itertools.count(1)
        self._generation = 0
        self._tokens = itertools.count(1)
        self._newest: dict[tuple[int, int], int] = {}  # (document, object) -> token of what is still awaited
        self._loaded: tuple[Settings, Model] | None = None
        self._model_lock = threading.Lock()
        self._waiting: list[_Ask] = []
        self._waiting_lock = threading.Lock()
        self._recent: tuple[Plane, Contrast, str, Embedding] | None = None
        self._forgotten = 0
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="medsam-prompt")
        self._scheduler = EmbeddingScheduler(self._current_model, self.cache, on_progress=self._on_progress)

    # the owner's verbs --------------------------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The model the settings ask for, or None while it is not loaded."""
        loaded = self._loaded
        if (
            loaded is None
            or not _same_model(loaded[0], self.settings)
            or not getattr(loaded[1], "alive", True)
        ):
            return None
        return loaded[1]

    def warm_up(self) -> None:
        """Load the model in the background, so that the first image need not wait for it."""
        self._submit(self._try_load)

    def configure(self, **changes: Any) -> None:
        """Change settings; what is under way for the old ones is dropped (finished fields stay in the cache)."""
        changed = replace(self.settings, **changes)
        if changed == self.settings:
            return
        self.cancel()
        reload = not _same_model(changed, self.settings)
        self.settings = changed
        if reload:
            self.warm_up()

    def show(self, plane: Plane) -> None:
        """Embed the plane on screen, in front of anything queued ahead of time."""
        self._scheduler.cancel(self._generation)
        self._generation = next(self._generations)
        request = FieldRequest(plane, self.settings.contrast, None, SHOWN, self._generation)
        self._scheduler.submit(request).add_done_callback(partial(self._on_shown, plane, self._generation))

    def request(self, document: Document, object_ids: Iterable[int], plane: Plane) -> None:
        """Decode the boxes of some objects of ``plane``; each answer arrives as ``predicted`` or ``failed``."""
        asks = []
        for object_id in object_ids:
            box = document[object_id].box
            if box is None:
                continue
            token = next(self._tokens)
            self._newest[id(document), object_id] = token
            asks.append(_Ask(document, object_id, box, plane, token))
        with self._waiting_lock:
            self._waiting.extend(asks)
        if asks:
            self._submit(partial(self._answer, plane, self.settings.contrast))

    def withdraw(self, document: Document, object_id: int) -> None:
        """Take back an object's request: its answer, should one arrive, is dropped."""
        self._newest.pop((id(document), object_id), None)

    def awaited(self, document: Document) -> list[int]:
        """Return the objects of a document whose answer is still to come."""
        return [object_id for owner, object_id in self._newest if owner == id(document)]

    def forget(self) -> None:
        """Pixels may have changed: read them again for the next prompt, however large the plane is."""
        self._forgotten += 1
        self._recent = None

    def cancel(self) -> None:
        """Drop everything queued. An encode in work ends on its own and is kept in the cache."""
        self._newest.clear()
        with self._waiting_lock:
            self._waiting.clear()
        self._scheduler.cancel()
        self.forget()

    def close(self) -> None:
        """Stop both threads and the model; nothing is emitted afterwards. Waits for at most one encode."""
        self.cancel()
        self._closed = True
        self._close_model()
        self._prompts.shutdown(wait=True, cancel_futures=True)
        self._scheduler.close(timeout=30)
        self._close_model()  # one whose loading had just ended

    # the prompt thread --------------------------------------------------------------------------------------

    def _answer(self, plane: Plane, contrast: Contrast) -> None:
        asks = self._take(plane)
        if not asks:
            return
        try:
            found = self._look_up(plane, contrast)
        except Exception as error:
            self._fail(asks, error)
            return
        if found is not None:
            self._decode(asks, found)
            return
        waiting = self._scheduler.submit(FieldRequest(plane, contrast, None, PROMPT, -1))
        waiting.add_done_callback(partial(self._on_embedded, asks))

    def _take(self, plane: Plane) -> list[_Ask]:
        with self._waiting_lock:
            mine = [ask for ask in self._waiting if ask.plane is plane]
            self._waiting = [ask for ask in self._waiting if ask.plane is not plane]
        return [ask for ask in mine if self._wanted(ask)]

    def _look_up(self, plane: Plane, contrast: Contrast) -> Embedding | None:
        model = self.model
        if model is None:
            return None  # the scheduler loads it
        large = plane.shape[0] * plane.shape[1] > REUSE_ABOVE
        recent = self._recent
        if large and recent is not None and recent[:3] == (plane, contrast, _encoder(model)):
            return recent[3]
        forgotten = self._forgotten
        found = embed(model, self.cache, FieldRequest(plane, contrast, None, PROMPT), lookup_only=True)
        if large and found is not None and forgotten == self._forgotten:
            self._recent = (plane, contrast, _encoder(model), found)
        return found

    def _decode(self, asks: list[_Ask], embedding: Embedding) -> None:
        for ask in asks:
            if not self._wanted(ask):
                continue
            try:
                [prediction] = predict(self._current_model(), embedding, [ask.box])
            except Exception as error:
                self._fail([ask], error)
            else:
                self._post(partial(self._arrived, ask, prediction))

    def _try_load(self) -> None:
        try:
            self._current_model()
        except Cancelled:
            pass
        except Exception as error:
            self._post(partial(self.notice.emit, _message(error, self.settings.model)))

    # the worker thread --------------------------------------------------------------------------------------

    def _current_model(self) -> Model:
        with self._model_lock:
            while True:
                ready = self.model
                if ready is not None:
                    return ready
                if self._closed:
                    raise Cancelled("The window is closed.")
                self._close_model()
                self._load_chosen(self.settings)

    def _load_chosen(self, chosen: Settings) -> None:
        """Load a model; one that is no longer wanted when it is there, or cannot be had, is nobody's business."""
        try:
            built = self._load(
                chosen.model,
                device=chosen.device,
                backend=chosen.backend,
                on_notice=self._on_notice,
                progress=self._on_download,
                stopping=lambda: self._closed or not _same_model(chosen, self.settings),
            )
        except Exception:
            if self._closed or _same_model(chosen, self.settings):
                raise
            return
        self._loaded = (chosen, built)
        if _same_model(chosen, self.settings):
            self._post(partial(self.model_changed.emit, built))

    def _close_model(self) -> None:
        loaded, self._loaded = self._loaded, None
        close = getattr(loaded[1], "close", None) if loaded is not None else None
        if close is not None:
            close()

    def _on_download(self, done: int, total: int) -> None:
        self._post(partial(self.downloading.emit, done, total))

    def _on_notice(self, message: str) -> None:
        self._post(partial(self.notice.emit, message))

    def _on_progress(self, progress: Progress) -> None:
        self._post(partial(self.progress.emit, progress))

    def _on_shown(self, plane: Plane, generation: int, done: Future[Embedding]) -> None:
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if isinstance(error, CancelledError):
            return
        if error is not None:
            self._post(partial(self._shown_failed, generation, plane, _message(error, plane.name)))
        else:
            self._post(partial(self._shown_ready, generation, plane, done.result().hit))

    def _on_embedded(self, asks: list[_Ask], done: Future[Embedding]) -> None:
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if error is not None:
            self._fail(asks, error)
        else:
            self._submit(partial(self._decode, asks, done.result()))

    # back in the owner's thread -----------------------------------------------------------------------------

    def _arrived(self, ask: _Ask, prediction: Prediction) -> None:
        if not self._wanted(ask) or ask.object_id not in ask.document:
            return
        self.withdraw(ask.document, ask.object_id)
        ask.document.predicted(ask.object_id, prediction)
        self.predicted.emit(ask.document, ask.object_id)

    def _refused(self, ask: _Ask, message: str) -> None:
        if not self._wanted(ask) or ask.object_id not in ask.document:
            return
        self.withdraw(ask.document, ask.object_id)
        ask.document.update(ask.object_id, problem=message)
        self.failed.emit(ask.document, ask.object_id, message)

    def _shown_ready(self, generation: int, plane: Plane, hit: bool) -> None:
        if generation == self._generation:
            self.shown.emit(plane, hit)

    def _shown_failed(self, generation: int, plane: Plane, message: str) -> None:
        if generation == self._generation:
            self.shown_failed.emit(plane, message)

    # small change -------------------------------------------------------------------------------------------

    def _wanted(self, ask: _Ask) -> bool:
        return self._newest.get((id(ask.document), ask.object_id)) == ask.token

    def _fail(self, asks: Iterable[_Ask], error: BaseException) -> None:
        for ask in asks:
            self._post(partial(self._refused, ask, _message(error, ask.plane.name)))

    def _submit(self, function: Callable[[], None]) -> None:
        if not self._closed:
            with suppress(RuntimeError):  # closed in this very moment
                self._prompts.submit(function)

    def _post(self, function: Callable[[], None]) -> None:
        self._post_raw(partial(self._unless_closed, function))

    def _unless_closed(self, function: Callable[[], None]) -> None:
        if not self._closed:
            function()


def _same_model(a: Settings, b: Settings) -> bool:
    return (a.model, a.device, a.backend) == (b.model, b.device, b.backend)


def _encoder(model: Model) -> str:
    return f"{model.encoder_hash} {model.precision}"


def _message(error: BaseException, name: str) -> str:
    if isinstance(error, MedSAMError):
        return str(error)
    return str(ModelError(f"{name}: {type(error).__name__}: {error}"))
