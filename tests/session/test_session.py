"""The session without a window: which answers are taken, which come too late, and what survives which change."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_medsam import PATIENCE_S, FakeLoader, FakeMedSAM

from napari_medsam.document.objects import Document, Part, PlaneKey
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.session.session import Session
from napari_medsam.session.settings import Settings

KEY = PlaneKey((None, None), (0, 1))
BIG = Box(20, 30, 200, 220)  # over half of the plane: answered from the whole plane
SMALL = Box(100, 100, 120, 130)
OTHER = Box(10, 10, 190, 180)


class Bench:
    """A session whose owner is the test: what is posted waits until the test lets it run."""

    def __init__(self, folder: Path, loader: FakeLoader, settings: Settings) -> None:
        self.loader = loader
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.cache = EmbeddingCache(folder / "embeddings")
        self.session = Session(settings, cache=self.cache, post=self.posted.put, load=loader)
        self.document = Document()
        self.heard: list[tuple[str, Any]] = []
        session = self.session
        session.predicted.connect(lambda _, part: self.hear("predicted", part[0]))
        session.failed.connect(lambda _, part, text: self.hear("failed", (part[0], text)))
        session.shown.connect(lambda plane, hit: self.hear("shown", (plane.name, hit)))
        session.shown_failed.connect(lambda _, text: self.hear("shown_failed", text))
        session.notice.connect(lambda text: self.hear("notice", text))
        session.model_changed.connect(lambda model: self.hear("model", model.name))
        session.progress.connect(lambda now: self.hear("progress", now.state))

    @property
    def model(self) -> FakeMedSAM:
        return self.loader.models[self.session.settings.model]

    def hear(self, kind: str, what: Any) -> None:
        self.heard.append((kind, what))

    def all(self, kind: str) -> list[Any]:
        return [what for heard, what in self.heard if heard == kind]

    def wait(self, done: Callable[[], bool]) -> None:
        """Run what is posted until `done()`."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            self.posted.get(timeout=max(0.0, deadline - time.monotonic()))()

    def run_posted(self) -> None:
        while True:
            try:
                self.posted.get_nowait()()
            except queue.Empty:
                return

    def add(self, plane: Plane, *boxes: Box) -> list[int]:
        ids = [self.document.add(KEY, box, 1).id for box in boxes]
        self.session.request(self.document, [(number, KEY) for number in ids], plane)
        return ids

    def predicted(self, *ids: int) -> Callable[[], bool]:
        return lambda: set(ids) <= set(self.all("predicted"))

    def idle(self) -> Callable[[], bool]:
        return lambda: self.all("progress")[-1:] == ["idle"]

    def mask(self, number: int, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
        prediction = self.document.part(number, KEY).prediction
        assert prediction is not None
        return prediction.full(shape)


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        models: dict[str, FakeMedSAM] | None = None, settings: Settings | None = None, **options: Any
    ) -> Bench:
        loader = FakeLoader(models or {"lite-medsam": FakeMedSAM()}, **options)
        made.append(Bench(tmp_path, loader, settings or Settings(ahead=False)))
        return made[-1]

    yield make
    for bench in made:
        bench.loader.gate.set()
        for model in bench.loader.models.values():
            model.release()
        bench.session.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("medsam")]


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


def make_plane(seed: int = 0, shape: tuple[int, int] = (256, 256), name: str = "cells") -> Plane:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Plane.from_array(pixels, name=name)


def inside(box: Box, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[int(box.r0) : int(box.r1), int(box.c0) : int(box.c1)] = True
    return mask


class TestAnswers:
    def test_a_box_is_answered_and_no_longer_awaited(self, bench: Bench) -> None:
        [number] = bench.add(make_plane(), BIG)
        assert bench.session.awaited(bench.document) == [(number, KEY)]
        bench.wait(bench.predicted(number))
        assert bench.session.awaited(bench.document) == []
        assert np.array_equal(bench.mask(number), inside(BIG))
        assert bench.document.part(number, KEY).turn == 1

    def test_boxes_asked_together_share_one_encode(self, bench: Bench) -> None:
        ids = bench.add(make_plane(), BIG, OTHER, BIG)
        bench.wait(bench.predicted(*ids))
        assert len(bench.model.encoded) == 1
        assert len(bench.model.decoded) == 3

    def test_a_moved_box_takes_only_its_newest_answer(self, bench: Bench) -> None:
        plane = make_plane()
        bench.model.hold()
        [number] = bench.add(plane, BIG)
        assert bench.model.encoding.wait(PATIENCE_S)
        bench.document.update_part(number, KEY, box=OTHER)
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.model.release()
        bench.wait(bench.predicted(number))
        bench.wait(bench.idle())
        bench.run_posted()
        assert bench.all("predicted") == [number]
        assert np.array_equal(bench.mask(number), inside(OTHER))
        assert len(bench.model.decoded) == 1

    def test_an_answer_already_posted_is_dropped_when_the_box_moves(self, bench: Bench) -> None:
        plane = make_plane()
        bench.wait(bench.predicted(*bench.add(plane, BIG)))
        [number] = bench.add(plane, OTHER)
        late = bench.posted.get(timeout=PATIENCE_S)  # the answer, not yet run
        bench.document.update_part(number, KEY, box=BIG)
        bench.session.request(bench.document, [(number, KEY)], plane)
        late()
        assert bench.document.part(number, KEY).prediction is None
        bench.wait(bench.predicted(number))
        assert np.array_equal(bench.mask(number), inside(BIG))

    @pytest.mark.parametrize("how", ["withdraw", "remove", "cancel"])
    def test_what_is_taken_back_is_not_answered(self, bench: Bench, how: str) -> None:
        bench.model.hold()
        [number] = bench.add(make_plane(), BIG)
        assert bench.model.encoding.wait(PATIENCE_S)
        if how == "withdraw":
            bench.session.withdraw(bench.document, (number, KEY))
        elif how == "remove":
            bench.document.remove(number)
        else:
            bench.session.cancel()
        bench.model.release()
        bench.wait(bench.idle())
        [after] = bench.add(make_plane(1), BIG)
        bench.wait(bench.predicted(after))
        assert bench.all("predicted") == [after]
        assert bench.all("failed") == []

    def test_documents_do_not_share_ids(self, bench: Bench) -> None:
        other, plane = Document(), make_plane()
        [number] = bench.add(plane, BIG)
        assert other.add(KEY, OTHER, 1).id == number
        bench.session.request(other, [(number, KEY)], plane)
        bench.session.withdraw(bench.document, (number, KEY))
        bench.wait(lambda: other.part(number, KEY).prediction is not None)
        assert bench.document.part(number, KEY).prediction is None

    def test_the_parts_of_one_object_are_answered_each_for_itself(self, bench: Bench) -> None:
        here, there, other = make_plane(), make_plane(1), PlaneKey((1, None, None), (1, 2))
        [number] = bench.add(here, BIG)
        bench.document.add_part(Part(number, other, OTHER, origin="carried"))
        bench.session.request(bench.document, [(number, other)], there)
        bench.session.withdraw(bench.document, (number, KEY))
        assert bench.session.awaited(bench.document) == [(number, other)]
        bench.wait(bench.predicted(number))
        bench.wait(bench.idle())
        bench.run_posted()
        found = bench.document.part(number, other).prediction
        assert found is not None
        assert np.array_equal(found.full((256, 256)), inside(OTHER))
        assert bench.document.part(number, KEY).prediction is None

    def test_the_answer_for_a_part_that_is_gone_is_dropped(self, bench: Bench) -> None:
        bench.model.hold()
        [number] = bench.add(make_plane(), BIG)
        bench.document.move_part(number, KEY, PlaneKey((1, None, None), (1, 2)))
        bench.model.release()
        [after] = bench.add(make_plane(1), BIG)
        bench.wait(bench.predicted(after))
        assert bench.all("predicted") == [after]

    def test_an_object_without_a_box_is_not_asked(self, bench: Bench) -> None:
        record = bench.document.add(KEY, None, 1)
        bench.session.request(bench.document, [(record.id, KEY)], make_plane())
        assert bench.session.awaited(bench.document) == []

    def test_prompts_on_an_embedded_plane_do_not_wait_for_the_encoder(self, bench: Bench) -> None:
        ready = make_plane()
        bench.wait(bench.predicted(*bench.add(ready, BIG)))
        bench.model.hold()
        bench.session.show(make_plane(1))
        assert bench.model.encoding.wait(PATIENCE_S)
        [number] = bench.add(ready, OTHER)
        bench.wait(bench.predicted(number))
        assert not bench.model.gate.is_set()
        assert len(bench.model.encoded) == 2


class TestFields:
    def test_the_whole_plane_answers_first_and_the_box_s_own_field_sharpens(self, bench: Bench) -> None:
        plane = make_plane()
        bench.wait(bench.predicted(*bench.add(plane, BIG)))
        bench.model.hold()
        [number] = bench.add(plane, SMALL)
        bench.wait(bench.predicted(number))
        first = bench.document.part(number, KEY).prediction
        assert first is not None
        assert first.field == whole_field(plane.shape)
        assert bench.session.awaited(bench.document) == [(number, KEY)]
        bench.model.release()
        bench.wait(lambda: bench.all("predicted").count(number) == 2)
        second = bench.document.part(number, KEY).prediction
        assert second is not None
        assert second.field.height < 256
        assert second.field.box.contains(SMALL)
        assert bench.session.awaited(bench.document) == []
        # Once there, it answers alone.
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.wait(lambda: bench.all("predicted").count(number) == 3)
        assert bench.document.part(number, KEY).prediction.field == second.field  # type: ignore[union-attr]
        assert len(bench.model.encoded) == 2

    def test_a_sharper_answer_is_dropped_once_the_object_was_touched(self, bench: Bench) -> None:
        plane = make_plane()
        bench.wait(bench.predicted(*bench.add(plane, BIG)))
        bench.model.hold()
        [number] = bench.add(plane, SMALL)
        bench.wait(bench.predicted(number))
        first = bench.document.part(number, KEY).prediction
        bench.session.withdraw(bench.document, (number, KEY))  # as a correction does
        bench.model.release()
        bench.wait(bench.idle())
        [after] = bench.add(plane, BIG)
        bench.wait(bench.predicted(after))
        assert bench.document.part(number, KEY).prediction is first

    def test_whole_means_the_whole_plane_for_every_box(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(settings=Settings(field="whole"))
        [number] = bench.add(make_plane(), SMALL)
        bench.wait(bench.predicted(number))
        assert bench.document.part(number, KEY).prediction.field == whole_field((256, 256))  # type: ignore[union-attr]
        assert len(bench.model.encoded) == 1

    def test_the_fields_under_the_view_are_made_ahead(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(settings=Settings(ahead=True))
        plane = make_plane(shape=(512, 512))
        bench.session.show(plane, Box(0, 0, 256, 256))
        bench.wait(lambda: bool(bench.all("shown")) and bench.idle()())
        made = len(bench.model.encoded)
        assert made > 1
        bench.model.hold()
        [number] = bench.add(plane, Box(100, 100, 140, 150))
        bench.wait(bench.predicted(number))
        prediction = bench.document.part(number, KEY).prediction
        assert prediction is not None
        assert prediction.field.kind == "grid"

    def test_a_pyramid_and_its_finest_level_alone_are_never_taken_for_each_other(self, bench: Bench) -> None:
        finest = np.zeros((1024, 1024), np.uint8)
        finest[:512] = 200
        coarse = 200 - finest[::4, ::4]  # another picture, as some writers' thumbnails are
        alone, pyramid = Plane.from_array(finest), Plane.from_array([finest, coarse])
        box = Box(10, 10, 900, 900)
        for plane in (alone, alone, pyramid, pyramid):
            bench.wait(bench.predicted(*bench.add(plane, box)))
        keys = [part.prediction.key for part in bench.document.parts() if part.prediction]
        assert keys[0] == keys[1] != keys[2] == keys[3]


class TestShown:
    def test_it_is_announced_with_where_it_came_from(self, bench: Bench) -> None:
        plane = make_plane(name="a")
        bench.session.show(plane)
        bench.wait(lambda: bench.all("shown") == [("a", False)])
        bench.session.show(plane)
        bench.wait(lambda: bench.all("shown") == [("a", False), ("a", True)])

    def test_the_model_is_made_ready_for_its_first_box(self, bench: Bench) -> None:
        plane = make_plane()
        for _ in range(2):  # encoded, then from the cache
            bench.session.show(plane)
            bench.wait(bench.idle())
        [number] = bench.add(plane, BIG)
        bench.wait(bench.predicted(number))
        prediction = bench.document.part(number, KEY).prediction
        assert prediction is not None
        deadline = time.monotonic() + PATIENCE_S
        while len(bench.model.warmed) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)  # it is made ready beside the prompts, and nothing is posted of it
        assert bench.model.warmed == [prediction.key] * 2

    def test_only_the_last_one_is_announced(self, bench: Bench) -> None:
        bench.model.hold()
        for seed, name in enumerate("abc"):
            bench.session.show(make_plane(seed, name=name))
            assert bench.model.encoding.wait(PATIENCE_S)
        bench.model.release()
        bench.wait(lambda: bool(bench.all("shown")))
        bench.wait(bench.idle())
        assert bench.all("shown") == [("c", False)]
        assert len(bench.model.encoded) == 2  # a was in work, b was dropped

    def test_a_cancelled_one_is_not_embedded_even_if_it_still_waited_for_the_model(
        self, bench: Bench
    ) -> None:
        bench.loader.gate.clear()
        bench.session.warm_up()
        assert bench.loader.loading.wait(PATIENCE_S)
        bench.session.show(make_plane())
        bench.session.cancel()
        bench.loader.gate.set()
        [number] = bench.add(make_plane(1), BIG)
        bench.wait(bench.predicted(number))
        bench.wait(bench.idle())
        assert len(bench.model.encoded) == 1
        assert bench.all("shown") == []

    def test_a_failure_is_told(self, bench: Bench) -> None:
        bench.model.encode_error = RuntimeError("no memory")
        bench.session.show(make_plane(name="cells"))
        bench.wait(lambda: bool(bench.all("shown_failed")))
        [text] = bench.all("shown_failed")
        assert "cells" in text
        assert "no memory" in text


class TestErrors:
    @pytest.mark.parametrize(
        "error", [ModelError("broken: try the CPU"), RuntimeError("broken"), ValueError()]
    )
    @pytest.mark.parametrize("where", ["encode_error", "decode_error"])
    def test_it_is_told_once_and_the_next_request_works(
        self, bench: Bench, error: Exception, where: str
    ) -> None:
        plane = make_plane()
        setattr(bench.model, where, error)
        [number] = bench.add(plane, BIG)
        bench.wait(lambda: bool(bench.all("failed")))
        [(failed, text)] = bench.all("failed")
        assert failed == number
        assert text
        assert bench.document.part(number, KEY).problem == text
        assert bench.session.awaited(bench.document) == []
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.wait(bench.predicted(number))
        assert bench.document.part(number, KEY).problem is None

    def test_an_image_that_cannot_be_read_is_told(self, bench: Bench) -> None:
        class Torn:
            shape, dtype, ndim = (256, 256), np.dtype(np.uint8), 2

            def __getitem__(self, _: Any) -> Any:
                raise OSError("the disk is gone")

        [number] = bench.add(Plane.from_array(Torn(), name="torn.zarr"), BIG)
        bench.wait(lambda: bool(bench.all("failed")))
        assert "torn.zarr" in bench.all("failed")[0][1]
        assert number in bench.document

    def test_a_model_that_cannot_be_loaded_is_told_and_tried_again(
        self, make_bench: Callable[..., Bench]
    ) -> None:
        bench = make_bench(errors=[CheckpointError("torn: get it again"), RuntimeError("no memory")])
        bench.session.warm_up()
        bench.wait(lambda: bench.all("notice") == ["torn: get it again"])
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.wait(lambda: bool(bench.all("failed")))
        assert "no memory" in bench.all("failed")[0][1]
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.wait(bench.predicted(number))
        assert bench.loader.asked == ["lite-medsam"] * 3

    def test_a_model_that_died_is_built_again(self, bench: Bench) -> None:
        bench.wait(bench.predicted(*bench.add(make_plane(), BIG)))
        first, fresh = bench.model, FakeMedSAM()
        bench.loader.models["lite-medsam"] = fresh
        first.alive = False
        assert bench.session.model is None
        [number] = bench.add(make_plane(1), BIG)
        bench.wait(bench.predicted(number))
        assert len(fresh.encoded) == 1
        assert len(fresh.decoded) == 1
        assert first.closed


@pytest.fixture
def two_models() -> dict[str, FakeMedSAM]:
    return {
        "lite-medsam": FakeMedSAM(iou=0.25),
        "sam-vit-b": FakeMedSAM(name="sam-vit-b", encoder_hash="f" * 64, iou=0.75),
    }


class TestConfigure:
    def test_the_same_again_changes_nothing(self, bench: Bench) -> None:
        bench.model.hold()
        [number] = bench.add(make_plane(), BIG)
        bench.session.configure(contrast=Contrast(), model="lite-medsam")
        bench.model.release()
        bench.wait(bench.predicted(number))

    def test_another_contrast_drops_what_is_under_way(self, bench: Bench) -> None:
        plane = make_plane()
        bench.model.hold()
        [number] = bench.add(plane, BIG)
        assert bench.model.encoding.wait(PATIENCE_S)
        bench.session.configure(contrast=Contrast("window", (50.0, 100.0), name="manual"))
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.model.release()
        bench.wait(bench.predicted(number))
        bench.wait(bench.idle())
        assert bench.all("predicted") == [number]
        assert len(bench.model.encoded) == 2
        bench.session.configure(contrast=Contrast())  # the encode that was under way has been kept
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.wait(lambda: len(bench.all("predicted")) == 2)
        assert len(bench.model.encoded) == 2

    def test_another_model_encodes_and_decodes_from_now_on(
        self, make_bench: Callable[..., Bench], two_models: dict[str, FakeMedSAM]
    ) -> None:
        bench = make_bench(two_models)
        old, new = two_models.values()
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.wait(bench.predicted(number))
        bench.session.configure(model="sam-vit-b")
        assert bench.session.model is None
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.wait(lambda: len(bench.all("predicted")) == 2)
        assert (len(new.encoded), len(new.decoded)) == (1, 1)
        assert bench.document.part(number, KEY).prediction.iou == 0.75  # type: ignore[union-attr]
        assert bench.all("model") == ["fake", "sam-vit-b"]
        assert old.closed

    def test_another_model_while_one_encodes(
        self, make_bench: Callable[..., Bench], two_models: dict[str, FakeMedSAM]
    ) -> None:
        bench = make_bench(two_models)
        old, new = two_models.values()
        plane = make_plane()
        old.hold()
        [number] = bench.add(plane, BIG)
        assert old.encoding.wait(PATIENCE_S)
        bench.session.configure(model="sam-vit-b")
        bench.session.request(bench.document, [(number, KEY)], plane)
        old.release()
        bench.wait(bench.predicted(number))
        bench.wait(bench.idle())
        assert bench.all("predicted") == [number]
        assert bench.all("failed") == []
        assert (len(new.encoded), len(new.decoded), old.decoded) == (1, 1, [])

    @pytest.mark.parametrize("obeys", [True, False])
    def test_another_model_while_one_loads(
        self, make_bench: Callable[..., Bench], two_models: dict[str, FakeMedSAM], obeys: bool
    ) -> None:
        bench = make_bench(two_models, obeys=obeys)
        old, new = two_models.values()
        plane = make_plane()
        bench.loader.gate.clear()
        [number] = bench.add(plane, BIG)
        bench.session.show(plane)
        assert bench.loader.loading.wait(PATIENCE_S)
        bench.session.configure(model="sam-vit-b")
        bench.session.show(plane)
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.loader.gate.set()
        bench.wait(bench.predicted(number))
        bench.wait(lambda: len(bench.all("shown")) == 1)
        assert bench.all("failed") == bench.all("shown_failed") == bench.all("notice") == []
        assert bench.all("model") == ["sam-vit-b"]
        assert (old.encoded, old.decoded) == ([], [])
        assert (len(new.encoded), len(new.decoded)) == (1, 1)


class TestClose:
    def test_while_it_encodes_nothing_comes_after(self, bench: Bench) -> None:
        bench.model.hold()
        bench.add(make_plane(), BIG)
        bench.session.show(make_plane(1))
        assert bench.model.encoding.wait(PATIENCE_S)
        bench.session.close()
        bench.heard.clear()
        bench.run_posted()
        assert bench.heard == []
        assert bench.model.closed

    @pytest.mark.parametrize("obeys", [True, False])
    def test_while_it_loads(self, make_bench: Callable[..., Bench], obeys: bool) -> None:
        bench = make_bench(obeys=obeys)
        bench.loader.gate.clear()
        bench.session.warm_up()
        bench.session.show(make_plane())
        assert bench.loader.loading.wait(PATIENCE_S)
        closing = threading.Thread(target=bench.session.close)
        closing.start()
        if not obeys:
            bench.loader.gate.set()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
        assert bench.model.closed or obeys
        bench.run_posted()
        assert bench.all("model") == []

    def test_afterwards_nothing_begins(self, bench: Bench) -> None:
        bench.session.close()
        bench.session.close()
        bench.session.show(make_plane())
        bench.session.warm_up()
        bench.add(make_plane(), BIG)
        bench.run_posted()
        assert bench.loader.asked == []
        assert bench.heard == []


class TestChangedPixels:
    LARGE = (1600, 1400)
    BOX = Box(100, 100, 1500, 1300)

    def test_in_a_small_plane_they_are_seen_at_once(self, bench: Bench) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
        plane = Plane.from_array(pixels)
        bench.wait(bench.predicted(*bench.add(plane, BIG)))
        pixels[:] = pixels[::-1].copy()
        bench.wait(bench.predicted(*bench.add(plane, BIG)))
        assert len(bench.model.encoded) == 2

    def test_in_a_large_plane_they_are_seen_once_it_is_told(self, bench: Bench) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, self.LARGE, dtype=np.uint8)
        plane = Plane.from_array(pixels)
        bench.wait(bench.predicted(*bench.add(plane, self.BOX)))
        bench.wait(bench.predicted(*bench.add(plane, self.BOX)))
        pixels[:] = pixels[::-1].copy()
        bench.session.forget()
        bench.wait(bench.predicted(*bench.add(plane, self.BOX)))
        assert len(bench.model.encoded) == 2

    def test_told_while_a_large_plane_is_being_read(self, bench: Bench) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, self.LARGE, dtype=np.uint8)
        reading, go_on = threading.Event(), threading.Event()
        go_on.set()

        class Slow:
            shape, dtype, ndim = pixels.shape, pixels.dtype, 2

            def __getitem__(self, key: Any) -> np.ndarray:
                found = pixels[key].copy()
                reading.set()
                assert go_on.wait(PATIENCE_S)
                return found

        plane = Plane.from_array(Slow())
        bench.wait(bench.predicted(*bench.add(plane, self.BOX)))
        bench.session.forget()
        reading.clear()
        go_on.clear()
        second = bench.add(plane, self.BOX)
        assert reading.wait(PATIENCE_S)  # the old pixels are already in hand
        pixels[:] = pixels[::-1].copy()
        bench.session.forget()
        go_on.set()
        bench.wait(bench.predicted(*second))
        [third] = bench.add(plane, self.BOX)
        bench.wait(bench.predicted(third))
        assert bench.document.part(third, KEY).prediction.key != bench.document.part(1, KEY).prediction.key  # type: ignore[union-attr]


class TestDetail:
    SETTINGS = Settings(ahead=False, detail=2)

    def test_a_large_box_is_blended_from_finer_fields(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(settings=self.SETTINGS)
        [number] = bench.add(make_plane(), BIG)
        bench.wait(lambda: bench.session.awaited(bench.document) == [])
        assert bench.document.part(number, KEY).prediction is not None
        assert (bench.mask(number) ^ inside(BIG)).sum() <= 2 * (180 + 190)  # the rim, at most a pixel wide
        assert len(bench.model.encoded) > 4

    def test_what_is_embedded_answers_first_and_the_blend_replaces_it(
        self, make_bench: Callable[..., Bench]
    ) -> None:
        bench = make_bench(settings=self.SETTINGS)
        plane = make_plane()
        bench.session.show(plane)
        bench.wait(lambda: bench.all("shown") == [("cells", False)])
        bench.model.hold()
        [number] = bench.add(plane, BIG)
        bench.wait(bench.predicted(number))
        first = bench.document.part(number, KEY).prediction
        assert first is not None
        assert first.field == whole_field((256, 256))
        assert bench.session.awaited(bench.document) == [(number, KEY)]
        bench.model.release()
        bench.wait(lambda: bench.session.awaited(bench.document) == [])
        assert bench.document.part(number, KEY).turn == 2

    def test_a_corrected_object_is_left_alone_by_the_blend(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(settings=self.SETTINGS)
        bench.model.hold()
        [number] = bench.add(make_plane(), BIG)
        bench.session.withdraw(bench.document, (number, KEY))  # what a stroke of the brush does
        bench.model.release()
        bench.wait(bench.idle())
        bench.run_posted()
        assert bench.document.part(number, KEY).prediction is None
        assert bench.all("predicted") == []

    def test_a_failing_field_is_told_once(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(settings=self.SETTINGS)
        bench.model.encode_error = ModelError("no luck")
        [number] = bench.add(make_plane(), BIG)
        bench.wait(lambda: bool(bench.all("failed")))
        bench.wait(bench.idle())
        bench.run_posted()
        assert [failed for failed, _ in bench.all("failed")] == [number]
