"""Embedding in the background: one worker thread, a queue by priority, progress, pause and cancel.

The order of events for one field:

    submit ──> queued ──> worker: embed() ──> the future has its result
                 │                │
               cancel           cancel: the future is cancelled at once; the encode ends and its result is
                 │                      still kept in the cache, so that asking again is free
                 └──> the future is cancelled, nothing is encoded

A future stays pending, in the sense of `concurrent.futures`, until its result is there: so it can be
cancelled at any time, by `cancel` here or by its own `cancel()`.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.errors import Cancelled, MedSAMError, ModelError
from napari_medsam.model.api import EncoderModel

__all__ = ["Embedding", "EmbeddingScheduler", "FieldRequest", "Progress", "embed"]

State = Literal["idle", "loading", "embedding", "paused"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where the worker stands: `done` of `total` fields since it was last idle, the plane in work by name."""

    done: int
    total: int
    current: str
    state: State


IDLE = Progress(0, 0, "", "idle")


@dataclass(eq=False)
class _Job:
    """One field to embed and all who asked for it."""

    request: FieldRequest
    waiting: list[tuple[FieldRequest, Future[Embedding]]] = field(default_factory=list)
    taken: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for requests that read the same pixels of the same array, which the job keeps alive."""
        return id(self.request.plane), self.request.contrast, self.request.field

    @property
    def wanted(self) -> bool:
        return any(not future.cancelled() for _, future in self.waiting)

    def drop(self, generation: int | None) -> list[Future[Embedding]]:
        """Forget who asked in that generation (None: all) and give their futures."""
        kept, dropped = [], []
        for request, future in self.waiting:
            if generation is None or request.generation == generation:
                dropped.append(future)
            else:
                kept.append((request, future))
        self.waiting = kept
        return dropped


class EmbeddingScheduler:
    """Embeds fields one after the other on a daemon thread of its own; knows nothing of Qt.

    `model` gives the model to use; it is called on the worker thread before each field, so that another
    choice takes effect at the next one, and should be quick once the model is loaded. `on_progress` is called
    on the worker thread, outside all locks. The thread starts at the first `submit` and ends with `close`,
    which a `with` block calls.
    """

    def __init__(
        self,
        model: Callable[[], EncoderModel],
        cache: EmbeddingCache,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._build = model
        self._cache = cache
        self._on_progress = on_progress
        self._model: EncoderModel | None = None  # the last one used; touched by the worker only
        self._reported = IDLE  # likewise
        self._changed = threading.Condition()  # guards everything below
        self._changes = 0
        self._heap: list[tuple[int, int, _Job]] = []
        self._queued: dict[tuple[object, ...], _Job] = {}
        self._working: _Job | None = None
        self._pushed = 0
        self._done = 0
        self._paused = False
        self._deferred = (0, 0.0)  # priority from which nothing is begun, and until when
        self._over = 0  # generations that are cancelled for good
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, request: FieldRequest) -> Future[Embedding]:
        """Queue one field; equal priorities go first in, first out.

        A field that is still queued for the same plane object and contrast is shared, and encoded once. The
        future raises ImageError or ModelError, or CancelledError after `cancel` or `close`.
        """
        future: Future[Embedding] = Future()
        with self._changed:
            late = self._closed or 0 < request.generation <= self._over
            if not late:
                self._enqueue(request, future)
                self._notify()
                self._start()
        if late:
            _cancel(future)
        return future

    def _enqueue(self, request: FieldRequest, future: Future[Embedding]) -> None:
        fresh = _Job(request)
        job = self._queued.setdefault(fresh.identity, fresh)
        job.waiting.append((request, future))
        if job is fresh or request.priority < job.request.priority:
            # A job that becomes more urgent gets a second place in the queue; the later one finds it taken.
            job.request = replace(job.request, priority=request.priority)
            self._pushed += 1
            heapq.heappush(self._heap, (request.priority, self._pushed, job))

    def cancel(self, generation: int | None = None) -> int:
        """Drop what waits, all of it or one generation's; gives the number of futures cancelled.

        The field in work ends its encode and is still kept in the cache, but its future is cancelled too.
        Generations are numbers that grow from 1: what is submitted in that one or an earlier one from now on is
        cancelled at once. 0 and below are no generation.
        """
        with self._changed:
            self._over = max(self._over, generation or 0)
            jobs = [*self._queued.values(), *([self._working] if self._working else [])]
            dropped = [future for job in jobs for future in job.drop(generation)]
            self._queued = {key: job for key, job in self._queued.items() if job.waiting}
            self._heap = [place for place in self._heap if place[2].waiting]  # lets go of their planes
            heapq.heapify(self._heap)
            self._notify()
        return sum(_cancel(future) for future in dropped)

    def pause(self) -> None:
        """Start no further field until `resume`; the one in work goes on."""
        self._set_paused(True)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._set_paused(False)

    def defer(self, priority: int, seconds: float) -> None:
        """Begin no field of this priority or a later one for some seconds from now; the one in work goes on."""
        with self._changed:
            self._deferred = (priority, time.monotonic() + seconds)
            self._notify()

    def _set_paused(self, paused: bool) -> None:
        with self._changed:
            self._paused = paused
            self._notify()

    def close(self, timeout: float | None = None) -> bool:
        """Cancel everything and end the thread; gives whether it ended within `timeout` seconds.

        An encode cannot be interrupted: it ends by itself, and its result is still kept in the cache.
        """
        with self._changed:
            self._closed = True
            thread = self._thread
            self._notify()
        self.cancel()
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout)
        return not thread.is_alive()

    def __enter__(self) -> EmbeddingScheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="medsam-embedding", daemon=True)
            self._thread.start()

    # The worker thread

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                seen = self._changes
                job = None if self._paused else self._take()
                progress = self._progress()
            self._report(progress)
            if job is not None:
                self._work(job)
                continue
            with self._changed:
                while self._changes == seen:
                    left = self._deferred_for()
                    if self._heap and not self._paused and not left:
                        break  # what was deferred is due
                    self._changed.wait(left or None)

    def _take(self) -> _Job | None:
        """The next job that somebody still waits for."""
        while self._heap:
            if self._deferred_for():
                return None
            job = heapq.heappop(self._heap)[2]
            if job.taken or not job.waiting:
                continue
            job.taken = True
            del self._queued[job.identity]
            if job.wanted:
                self._working = job
                return job
            for future in job.drop(None):
                _cancel(future)
        return None

    def _deferred_for(self) -> float:
        """Seconds for which the next place in the queue must wait."""
        priority, until = self._deferred
        if not self._heap or self._heap[0][0] < priority:
            return 0.0
        return max(0.0, until - time.monotonic())

    def _progress(self) -> Progress:
        if self._working is None and not self._queued:
            self._done = 0
            return IDLE
        total = self._done + len(self._queued) + (self._working is not None)
        if self._working is None:
            return Progress(self._done, total, "", "paused")
        state: State = "loading" if self._model is None else "embedding"
        return Progress(self._done, total, self._working.request.plane.name, state)

    def _report(self, progress: Progress) -> None:
        if progress == self._reported or self._on_progress is None or self._closed:
            return
        self._reported = progress
        try:
            self._on_progress(progress)
        except Exception:  # a listener's fault must not stop the worker
            _log.exception("A listener to the embedding progress failed.")

    def _work(self, job: _Job) -> None:
        result: Embedding | MedSAMError
        try:
            model = self._load()
        except Exception as error:
            # Each queued field would meet the same fault, and a download's takes its time to fail.
            result = _readable(error, job)
            self._finish(result, everything=True)
            return
        if not job.wanted:  # cancelled while the model was loading
            self._finish(Cancelled("The field was cancelled while its model was loading."))
            return
        try:
            result = embed(model, self._cache, job.request)
        except Exception as error:
            result = _readable(error, job)
        self._finish(result)

    def _load(self) -> EncoderModel:
        model = self._build()
        if model is not self._model:
            self._model = model
            with self._changed:
                progress = self._progress()
            self._report(progress)
        return model

    def _finish(self, result: Embedding | MedSAMError, *, everything: bool = False) -> None:
        """Answer all who wait for the field in work, or for any field."""
        with self._changed:
            jobs = [self._working, *(self._queued.values() if everything else ())]
            waiting = [asked for job in jobs if job is not None for asked in job.waiting]
            for job in jobs:
                if job is not None:
                    job.waiting = []
            if everything:
                self._queued.clear()
            self._working = None
            self._done += 1
        for request, future in waiting:
            _answer(future, request, result)


def _answer(future: Future[Embedding], request: FieldRequest, result: Embedding | MedSAMError) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Embedding):
        future.set_result(replace(result, generation=request.generation))
    else:
        future.set_exception(result)


def _cancel(future: Future[Embedding]) -> bool:
    """Cancel a future that nobody else will answer, and wake those who wait for it among others."""
    cancelled = future.cancel()
    if cancelled:
        future.set_running_or_notify_cancel()
    return cancelled


def _readable(error: Exception, job: _Job) -> MedSAMError:
    if isinstance(error, MedSAMError):
        return error
    reason = str(error) or type(error).__name__
    failure = ModelError(f"Image {job.request.plane.name!r} cannot be embedded: {reason}")
    failure.__cause__ = error
    return failure
