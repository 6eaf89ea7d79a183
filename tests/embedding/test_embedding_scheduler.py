"""The worker: order, cancel, pause, close, failures; and that nobody waits for it who need not."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait

import numpy as np
import pytest
from embedding_fakes import FakeModel, Gate, fingerprint, make_plane, make_request

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, embed
from napari_medsam.embedding.scheduler import EmbeddingScheduler, Progress
from napari_medsam.errors import CheckpointError, ImageError, ModelError
from napari_medsam.image.contrast import Contrast

TIMEOUT = 20


class Listener:
    """Keeps every progress report and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self._news = threading.Condition()

    def __call__(self, progress: Progress) -> None:
        with self._news:
            self.seen.append(progress)
            self._news.notify_all()

    def wait_for(self, state: str, after: int = 0) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(p.state == state for p in self.seen[after:]), TIMEOUT), (
                self.seen
            )


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def model(gate: Gate) -> FakeModel:
    return FakeModel(before_encode=gate)


@pytest.fixture
def heard() -> Listener:
    return Listener()


@pytest.fixture
def scheduler(
    model: FakeModel, cache: EmbeddingCache, heard: Listener, gate: Gate
) -> Iterator[EmbeddingScheduler]:
    scheduler = EmbeddingScheduler(lambda: model, cache, on_progress=heard)
    yield scheduler
    gate.open()
    assert scheduler.close(TIMEOUT)


def result(future: Future[Embedding]) -> Embedding:
    return future.result(TIMEOUT)


def test_a_result_is_what_the_encoder_gives_and_carries_its_request(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel
) -> None:
    gate.open()
    request = make_request(make_plane(), 1, generation=7)
    found = result(scheduler.submit(request))
    assert np.array_equal(found.features, fingerprint(model.encoded[0], model.encoder_hash, model.precision))
    assert (found.plane, found.field, found.generation, found.hit) == (request.plane, request.field, 7, False)
    assert not found.features.flags.writeable
    assert result(scheduler.submit(make_request(make_plane(), 1))).hit
    assert model.calls == 1


def test_low_numbers_first_and_first_in_first_out(scheduler: EmbeddingScheduler, gate: Gate) -> None:
    plane = make_plane()
    order: list[int] = []
    scheduler.submit(make_request(plane, 0))
    gate.wait_started()
    for at, priority in [(1, 5), (2, 1), (3, 5), (4, 0), (5, 1)]:
        future = scheduler.submit(make_request(plane, at, priority=priority))
        future.add_done_callback(lambda _, at=at: order.append(at))
    gate.open()
    scheduler.submit(make_request(plane, 6, priority=9)).result(TIMEOUT)
    assert order == [4, 2, 5, 1, 3]


def test_the_same_field_of_the_same_plane_is_encoded_once(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel, heard: Listener
) -> None:
    plane = make_plane()
    scheduler.submit(make_request(plane, 0))
    gate.wait_started()
    order: list[str] = []
    twice = [scheduler.submit(make_request(plane, 1, generation=g, priority=9 - 9 * g)) for g in range(2)]
    once = scheduler.submit(make_request(plane, 2, priority=3))
    twice[0].add_done_callback(lambda _: order.append("twice"))
    once.add_done_callback(lambda _: order.append("once"))
    gate.open()
    assert [result(future).generation for future in twice] == [0, 1]
    assert not any(result(future).hit for future in twice)
    result(once)
    assert order == ["twice", "once"]  # the more urgent of the two requests counts
    assert model.calls == 3
    assert {p.total for p in heard.seen if p.state == "embedding"} <= {1, 2, 3}


def test_another_plane_or_contrast_is_not_taken_for_the_same(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel
) -> None:
    scheduler.submit(make_request(make_plane(9)))
    gate.wait_started()
    asked = [
        make_request(make_plane(0)),
        make_request(make_plane(1)),
        make_request(make_plane(0), 0),
    ]
    asked.append(type(asked[0])(asked[0].plane, Contrast("window", (0.0, 99.0))))
    futures = [scheduler.submit(request) for request in asked]
    gate.open()
    assert len({result(future).key for future in futures}) == 4
    assert model.calls == 5


def test_cancel_drops_what_waits_and_keeps_what_is_done(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel, cache: EmbeddingCache, heard: Listener
) -> None:
    plane = make_plane()
    futures = [scheduler.submit(make_request(plane, at)) for at in range(5)]
    gate.wait_started()
    assert scheduler.cancel() == 5
    assert all(future.cancelled() for future in futures)  # at once, the one in work as well
    assert not wait(futures, TIMEOUT).not_done
    with pytest.raises(CancelledError):
        futures[0].result(0)
    gate.let_go()
    heard.wait_for("idle")
    assert model.calls == 1
    assert embed(model, cache, make_request(plane, 0), lookup_only=True) is not None
    assert heard.seen[-1] == Progress(0, 0, "", "idle")
    assert scheduler.cancel() == 0


def test_cancel_of_one_generation_leaves_the_others(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel
) -> None:
    plane = make_plane()
    first = scheduler.submit(make_request(plane, 0, generation=1))
    gate.wait_started()
    old = [scheduler.submit(make_request(plane, at, generation=1)) for at in (1, 2)]
    new = [scheduler.submit(make_request(plane, at, generation=2)) for at in (2, 3)]
    assert scheduler.cancel(1) == 3
    assert first.cancelled()
    assert all(future.cancelled() for future in old)
    gate.open()
    assert [result(future).generation for future in new] == [2, 2]
    assert model.calls == 3  # 0, 2 and 3


def test_what_is_submitted_late_in_a_cancelled_generation_is_not_encoded(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel
) -> None:
    plane = make_plane()
    gate.open()
    scheduler.cancel(2)
    assert all(scheduler.submit(make_request(plane, g, generation=g)).cancelled() for g in (1, 2))
    for generation in (0, 3):  # no generation, and the next one
        assert result(scheduler.submit(make_request(plane, 4 + generation, generation=generation)))
    assert model.calls == 2


def test_a_future_can_be_cancelled_by_itself(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel
) -> None:
    plane = make_plane()
    futures = [scheduler.submit(make_request(plane, at)) for at in range(3)]
    gate.wait_started()
    assert futures[0].cancel()
    assert futures[1].cancel()
    gate.open()
    result(futures[2])
    assert not wait(futures, TIMEOUT).not_done
    assert model.calls == 2
    again = scheduler.submit(make_request(plane, 1))
    assert not result(again).hit


def test_pause_holds_the_next_field_and_resume_goes_on(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel, heard: Listener
) -> None:
    plane = make_plane(name="slide")
    futures = [scheduler.submit(make_request(plane, at)) for at in range(2)]
    gate.wait_started()
    scheduler.pause()
    gate.open()
    result(futures[0])  # the one in work goes on
    heard.wait_for("paused")
    assert heard.seen[-1] == Progress(1, 2, "", "paused")
    assert not futures[1].done()
    assert model.calls == 1
    scheduler.resume()
    result(futures[1])
    heard.wait_for("idle")


def test_a_paused_queue_can_be_cancelled(scheduler: EmbeddingScheduler, heard: Listener) -> None:
    scheduler.pause()
    future = scheduler.submit(make_request(make_plane()))
    heard.wait_for("paused")
    scheduler.cancel()
    heard.wait_for("idle")
    assert future.cancelled()


def test_progress_counts_names_and_resets(scheduler: EmbeddingScheduler, gate: Gate, heard: Listener) -> None:
    scheduler.pause()
    futures = [scheduler.submit(make_request(make_plane(seed, name=name))) for seed, name in enumerate("abc")]
    heard.wait_for("paused")
    before = len(heard.seen)
    gate.open()
    scheduler.resume()
    for future in futures:
        result(future)
    heard.wait_for("idle")
    assert heard.seen[before:][-5:] == [
        Progress(0, 3, "a", "loading"),
        Progress(0, 3, "a", "embedding"),
        Progress(1, 3, "b", "embedding"),
        Progress(2, 3, "c", "embedding"),
        Progress(0, 0, "", "idle"),
    ]


def test_close_while_busy_cancels_and_joins(model: FakeModel, gate: Gate, cache: EmbeddingCache) -> None:
    scheduler = EmbeddingScheduler(lambda: model, cache)
    plane = make_plane()
    futures = [scheduler.submit(make_request(plane, at)) for at in range(3)]
    gate.wait_started()
    assert not scheduler.close(0.01)  # an encode cannot be interrupted ...
    assert all(future.cancelled() for future in futures)
    gate.let_go()
    assert scheduler.close(TIMEOUT)  # ... but nothing follows it
    assert model.calls == 1
    assert embed(model, cache, make_request(plane, 0), lookup_only=True) is not None
    assert scheduler.submit(make_request(plane, 1)).cancelled()


def test_close_without_work_and_twice(model: FakeModel, cache: EmbeddingCache) -> None:
    with EmbeddingScheduler(lambda: model, cache) as scheduler:
        assert not [thread for thread in threading.enumerate() if thread.name == "medsam-embedding"]
    assert scheduler.close()
    assert scheduler.close(TIMEOUT)


def test_close_while_paused(model: FakeModel, cache: EmbeddingCache) -> None:
    with EmbeddingScheduler(lambda: model, cache) as scheduler:
        scheduler.pause()
        future = scheduler.submit(make_request(make_plane()))
    assert future.cancelled()


def test_a_callback_may_close_and_no_report_follows(
    model: FakeModel, gate: Gate, cache: EmbeddingCache
) -> None:
    gate.open()
    heard = Listener()
    scheduler = EmbeddingScheduler(lambda: model, cache, on_progress=heard)
    closed = threading.Event()
    future = scheduler.submit(make_request(make_plane()))
    future.add_done_callback(lambda _: (scheduler.close(), closed.set()))
    assert closed.wait(TIMEOUT)
    assert scheduler.close(TIMEOUT)
    assert heard.seen[-1].state == "embedding"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError(""), MemoryError()])
def test_a_failing_encode_is_told_with_the_plane_and_the_worker_lives_on(
    cache: EmbeddingCache, error: Exception
) -> None:
    def fail_on_dark(prepared: np.ndarray) -> None:
        if not prepared.any():
            raise error

    model = FakeModel(before_encode=fail_on_dark)
    with EmbeddingScheduler(lambda: model, cache) as scheduler:
        dark = make_plane(name="night")
        dark.levels[0][:] = 0
        bad, good = scheduler.submit(make_request(dark)), scheduler.submit(make_request(make_plane()))
        told = bad.exception(TIMEOUT)
        assert isinstance(told, ModelError)
        assert not isinstance(told, RuntimeError)
        assert "'night'" in str(told)
        assert told.__cause__ is error
        assert not result(good).hit


def test_an_image_that_cannot_be_read_is_named(scheduler: EmbeddingScheduler, gate: Gate) -> None:
    class Torn:
        shape, dtype, ndim = (40, 48), np.dtype(np.uint8), 2

        def __getitem__(self, _: object) -> np.ndarray:
            raise OSError("chunk 3 is missing")

    gate.open()
    torn = type(make_plane())(levels=(Torn(),), rgb=False, name="torn.zarr", index=(None, None))
    told = scheduler.submit(make_request(torn, 0)).exception(TIMEOUT)
    assert isinstance(told, ImageError)
    assert "torn.zarr" in str(told)
    assert "chunk 3 is missing" in str(told)
    assert not result(scheduler.submit(make_request(make_plane()))).hit


def test_features_that_are_not_finite_are_an_error_and_not_kept(cache: EmbeddingCache) -> None:
    class Overflowing(FakeModel):
        def encode(self, prepared: np.ndarray) -> object:
            encoded = super().encode(prepared)
            encoded.features[0, 0, 0] = np.inf
            return encoded

    with pytest.raises(ModelError, match=r"'image'.*'cpu'"):
        embed(Overflowing(), cache, make_request(make_plane()))
    assert cache.stats().entries == 0


def test_a_model_that_cannot_be_loaded_fails_all_that_wait_and_is_tried_again(
    cache: EmbeddingCache, heard: Listener
) -> None:
    faults = [CheckpointError("lite_medsam.pth is torn"), RuntimeError("no memory")]
    entered, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def load() -> FakeModel:
        entered.release()
        assert go_on.acquire(timeout=TIMEOUT)
        if faults:
            raise faults.pop(0)
        return FakeModel()

    with EmbeddingScheduler(load, cache, on_progress=heard) as scheduler:
        plane = make_plane(name="cells")
        futures = [scheduler.submit(make_request(plane, 0))]
        assert entered.acquire(timeout=TIMEOUT)
        futures += [scheduler.submit(make_request(plane, at)) for at in (1, 2)]
        go_on.release()
        told = [future.exception(TIMEOUT) for future in futures]
        assert [type(error) for error in told] == [CheckpointError] * 3  # one attempt, not three
        heard.wait_for("idle")
        go_on.release()
        again = scheduler.submit(make_request(plane, 0)).exception(TIMEOUT)
        assert isinstance(again, ModelError)
        assert "'cells'" in str(again)
        go_on.release()
        assert not result(scheduler.submit(make_request(plane, 0))).hit


def test_a_cancel_while_the_model_loads_encodes_nothing(cache: EmbeddingCache, heard: Listener) -> None:
    entered, go_on = threading.Event(), threading.Event()
    model = FakeModel()

    def load() -> FakeModel:
        entered.set()
        assert go_on.wait(TIMEOUT)
        return model

    with EmbeddingScheduler(load, cache, on_progress=heard) as scheduler:
        future = scheduler.submit(make_request(make_plane()))
        assert entered.wait(TIMEOUT)
        assert scheduler.cancel() == 1
        go_on.set()
        heard.wait_for("idle")
    assert future.cancelled()
    assert model.calls == 0


def test_another_model_takes_effect_at_the_next_field(cache: EmbeddingCache) -> None:
    models = [FakeModel(encoder_hash="e0"), FakeModel(encoder_hash="e1")]
    chosen = [models[0]]
    with EmbeddingScheduler(lambda: chosen[0], cache) as scheduler:
        first = result(scheduler.submit(make_request(make_plane())))
        chosen[0] = models[1]
        second = result(scheduler.submit(make_request(make_plane())))
    assert not second.hit
    assert first.key != second.key
    assert [model.calls for model in models] == [1, 1]


def test_what_is_cached_never_reaches_the_encoder(cache: EmbeddingCache) -> None:
    plane = make_plane()
    kept = embed(FakeModel(), cache, make_request(plane))
    other = FakeModel()
    with EmbeddingScheduler(lambda: other, EmbeddingCache(cache.folder)) as scheduler:
        found = result(scheduler.submit(make_request(plane)))
    assert found.hit
    assert found.key == kept.key
    assert other.calls == 0


def test_an_encode_that_falls_back_is_kept_under_what_it_really_was(cache: EmbeddingCache) -> None:
    plane = make_plane()
    on_gpu = FakeModel(precision="torch-float16", fall_back="torch-float32")
    found = embed(on_gpu, cache, make_request(plane))
    assert embed(FakeModel(precision="torch-float16"), cache, make_request(plane), lookup_only=True) is None
    again = embed(FakeModel(precision="torch-float32"), cache, make_request(plane), lookup_only=True)
    assert again is not None
    assert again.key == found.key
    assert np.array_equal(again.features, found.features)


def test_without_a_cache_each_request_is_encoded() -> None:
    model = FakeModel()
    assert embed(model, None, make_request(make_plane()), lookup_only=True) is None
    found = [embed(model, None, make_request(make_plane())) for _ in range(2)]
    assert [embedding.hit for embedding in found] == [False, False]
    assert model.calls == 2


def test_a_lookup_does_not_wait_for_the_encode_in_work(
    scheduler: EmbeddingScheduler, gate: Gate, model: FakeModel, cache: EmbeddingCache
) -> None:
    plane = make_plane()
    gate.let_go()
    known = result(scheduler.submit(make_request(plane, 0)))
    gate.wait_started()
    busy = scheduler.submit(make_request(plane, 1))
    gate.wait_started()  # the worker is inside encode until the gate opens
    found = embed(model, cache, make_request(plane, 0), lookup_only=True)
    assert found is not None
    assert found.key == known.key
    assert embed(model, EmbeddingCache(cache.folder), make_request(plane, 0), lookup_only=True) is not None
    assert embed(model, cache, make_request(plane, 1), lookup_only=True) is None
    assert not busy.done()
    assert model.calls == 2


def test_callbacks_run_outside_all_locks(model: FakeModel, gate: Gate, cache: EmbeddingCache) -> None:
    gate.open()
    plane = make_plane()
    later: list[Future[Embedding]] = []
    arrived = threading.Event()

    def from_another_thread() -> None:
        """Only passes when the caller holds no lock of the scheduler."""
        thread = threading.Thread(target=lambda: later.append(scheduler.submit(make_request(plane, 1))))
        thread.start()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        arrived.set()

    reports = iter([from_another_thread])
    with EmbeddingScheduler(
        lambda: model, cache, on_progress=lambda _: next(reports, lambda: None)()
    ) as scheduler:
        future = scheduler.submit(make_request(plane, 0))
        assert arrived.wait(TIMEOUT)
        result(future)
        arrived.clear()
        scheduler.pause()
        waiting = scheduler.submit(make_request(plane, 2))
        waiting.add_done_callback(lambda _: from_another_thread())
        scheduler.cancel()
        assert arrived.is_set()
    assert len(later) == 2


def test_a_listeners_fault_does_not_stop_the_worker(
    model: FakeModel, gate: Gate, cache: EmbeddingCache, caplog: pytest.LogCaptureFixture
) -> None:
    gate.open()

    def broken(_: Progress) -> None:
        raise RuntimeError("wrapped C/C++ object has been deleted")

    with EmbeddingScheduler(lambda: model, cache, on_progress=broken) as scheduler:
        result(scheduler.submit(make_request(make_plane())))
        assert not result(scheduler.submit(make_request(make_plane(1)))).hit
    assert "listener" in caplog.text


def test_a_full_disk_does_not_break_the_result(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("store") / "file"
    file.write_text("mine")
    cache = EmbeddingCache(file)
    model = FakeModel()
    assert not embed(model, cache, make_request(make_plane())).hit
    assert embed(model, cache, make_request(make_plane())).hit  # from memory
    assert cache.problem is not None


def test_planes_are_let_go_when_done_or_cancelled(
    scheduler: EmbeddingScheduler, gate: Gate, heard: Listener
) -> None:
    planes = [make_plane(seed) for seed in range(3)]
    gone = [weakref.ref(plane) for plane in planes]
    scheduler.submit(make_request(planes[0]))
    gate.wait_started()
    for plane in planes[1:]:
        scheduler.submit(make_request(plane))
    scheduler.cancel()
    del plane
    planes.clear()
    gc.collect()
    assert [ref() is None for ref in gone] == [False, True, True]
    gate.open()
    heard.wait_for("idle")
    gc.collect()
    assert gone[0]() is None
