"""Many masks at once: one step of undo, one refresh, one relabel, and the same pixels as one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from layers_desk import LayersDesk
from planes import corners, filled

from napari_medsam.document.objects import PartKey, PlaneKey
from napari_medsam.document.overlap import Policy
from napari_medsam.geometry import Box
from napari_medsam.image.field import whole_field
from napari_medsam.layers import masks as masks_module
from napari_medsam.layers import painting as painting_module
from napari_medsam.layers import stage as stage_module
from napari_medsam.layers.prompts import PromptLayer
from napari_medsam.segment.prediction import Prediction

SHAPE = (256, 256)
PLANE = PlaneKey((None, None), (0, 1))
Edges = tuple[int, int, int, int]
GRID: list[Edges] = [(r, c, r + 9, c + 11) for r in range(0, 240, 20) for c in range(0, 240, 20)]


def predict(desk: LayersDesk, part: PartKey, box: Edges) -> None:
    """Give a part the prediction that fills a box."""
    r0, c0, r1, c1 = box
    found = Prediction(Box(*box), r0, c0, np.ones((r1 - r0, c1 - c0), bool), 0.9, "k", whole_field(SHAPE))
    desk.work.document.predicted(*part, found)


def add(desk: LayersDesk, boxes: Iterable[Edges], plane: PlaneKey | None = None) -> list[PartKey]:
    """Parts of new objects, with predictions that nobody has drawn yet."""
    plane = plane or PLANE
    parts = []
    for box in boxes:
        parts.append((desk.work.document.add(plane, Box(*box), 1).id, plane))
        predict(desk, parts[-1], box)
    return parts


def expected(boxes: Iterable[Edges]) -> np.ndarray:
    return sum(
        (filled(SHAPE, box) * number for number, box in enumerate(boxes, start=1)), np.zeros(SHAPE, int)
    )


@pytest.fixture
def ready(desk: LayersDesk, image: np.ndarray) -> LayersDesk:
    """A desk with empty layers, ready to draw."""
    desk.open(image)
    desk.draw_boxes()
    return desk


@pytest.fixture
def told(ready: LayersDesk, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the events of the labels, and how often the shapes were labelled."""
    counts: Counter[str] = Counter()
    for name in ("paint", "labels_update", "set_data"):
        getattr(ready.labels.events, name).connect(lambda _, name=name: counts.update([name]))
    label = PromptLayer.label

    def counted(self: PromptLayer, *values: Any) -> None:
        counts.update(["label"])
        label(self, *values)

    monkeypatch.setattr(PromptLayer, "label", counted)
    return counts


@pytest.fixture
def one_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice ends after its first object: the clock goes on by more than half a slice with each look at it."""
    ticks = itertools.count(0.0, 0.6 * painting_module.SLICE_S)
    monkeypatch.setattr(painting_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))


class TestOneStep:
    def test_one_undo_one_refresh_one_relabel(self, ready: LayersDesk, told: Counter[str]) -> None:
        ready.work.painting.draw(add(ready, GRID))
        ready.wait(lambda: len(ready.painted) == len(GRID))
        ready.settle()
        assert np.array_equal(ready.labels.data, expected(GRID))
        assert (told["paint"], told["labels_update"], told["set_data"]) == (1, 1, 0)
        assert told["label"] <= 2  # once for the masks, once since `settle` looks what undo did
        told.clear()
        ready.labels.undo()
        assert not ready.labels.data.any()
        ready.settle()
        assert ready.ids == list(range(1, len(GRID) + 1))
        ready.redo()
        assert np.array_equal(ready.labels.data, expected(GRID))
        assert not any(record.corrected for record in ready.work.document)

    @pytest.mark.usefixtures("one_a_slice")
    def test_slices_are_one_step_too(self, ready: LayersDesk, told: Counter[str]) -> None:
        ready.work.painting.draw(add(ready, GRID[:9]))
        turns = 0
        while not ready.painted:
            assert told["paint"] == told["labels_update"] == 0
            ready.turn()
            turns += 1
        assert turns == 8
        assert (told["paint"], told["labels_update"], told["set_data"]) == (1, 1, 0)
        assert np.array_equal(ready.labels.data, expected(GRID[:9]))
        ready.undo()
        assert not ready.labels.data.any()

    def test_a_few_are_there_at_once(self, ready: LayersDesk) -> None:
        ready.work.painting.draw(add(ready, GRID[:3]))
        assert ready.painted == [1, 2, 3]
        assert np.array_equal(ready.labels.data, expected(GRID[:3]))

    def test_a_correction_after_it_is_undone_alone(self, ready: LayersDesk) -> None:
        ready.work.painting.draw(add(ready, GRID[:20]))
        ready.wait(lambda: len(ready.painted) == 20)
        ready.paint(3, slice(100, 104), slice(0, 200))
        assert ready.part(3).corrected
        ready.undo()
        assert np.array_equal(ready.labels.data, expected(GRID[:20]))
        assert not any(record.corrected for record in ready.work.document)
        ready.undo()
        assert not ready.labels.data.any()
        ready.redo()
        ready.redo()
        assert (ready.labels.data[100:104, :200] == 3).all()
        assert ready.part(3).corrected

    def test_masks_on_many_planes_of_labels_on_disk(
        self, desk: LayersDesk, image: np.ndarray, tmp_path: Path
    ) -> None:
        desk.open(np.stack([image] * 5))
        own = zarr.create_array(tmp_path / "own.zarr", shape=(5, *SHAPE), chunks=(1, 64, 64), dtype="int32")
        desk.work.painting.attach(desk.viewer.add_labels(own))
        ids = []
        for place, box in enumerate(GRID[:5]):
            ids += add(desk, [box], PlaneKey((place, None, None), (1, 2)))
        desk.work.painting.draw(ids)
        desk.wait(lambda: len(desk.painted) == 5)
        for place, box in enumerate(GRID[:5]):
            assert np.array_equal(own[place], filled(SHAPE, box) * (place + 1))
        desk.undo()
        assert not own[:].any()

    def test_a_label_that_does_not_fit_is_told_and_the_rest_is_drawn(self, ready: LayersDesk) -> None:
        ready.work.painting.attach(ready.viewer.add_labels(np.zeros(SHAPE, np.uint8)))
        ready.work.document.reserve(253)
        ids = add(ready, GRID[:4])
        ready.work.painting.draw(ids)
        assert set(np.unique(ready.labels.data)) == {0, 254, 255}
        assert len([text for text in ready.said if "does not fit" in text]) == 2


class TestSamePixels:
    @pytest.mark.parametrize("policy", ["later", "never", "corrected"])
    def test_as_one_by_one(self, tmp_path: Path, image: np.ndarray, policy: Policy) -> None:
        found = []
        for together in (True, False):
            desk = LayersDesk(tmp_path / str(together))
            desk.open(image)
            desk.choices.policy = policy
            rng = np.random.default_rng(4)  # the same boxes, over one another
            for _ in range(2):
                ids = add(desk, _some_boxes(rng, 25))
                _draw(desk, ids, together)
                desk.paint(ids[3][0], slice(10, 40), slice(10, 60))
                for part, box in zip(ids[5:15], _some_boxes(rng, 10), strict=True):
                    predict(desk, part, box)  # elsewhere: what they hid comes back
                _draw(desk, ids[5:15], together)
            found.append(desk.labels.data.copy())
            found.append(np.array([part.extent for part in desk.work.document.parts()]))
            desk.close()
        assert np.array_equal(found[0], found[2])
        assert np.array_equal(found[1], found[3])
        assert len(np.unique(found[0])) > 20


def _some_boxes(rng: np.random.Generator, count: int) -> list[Edges]:
    first = rng.integers(0, 200, (count, 2))
    last = first + rng.integers(5, 50, (count, 2))
    return [(int(r0), int(c0), int(r1), int(c1)) for (r0, c0), (r1, c1) in zip(first, last, strict=True)]


def _draw(desk: LayersDesk, ids: list[PartKey], together: bool) -> None:
    if together:
        desk.work.painting.draw(ids)
        desk.work.painting.finish()
        return
    for part in ids:
        desk.work.painting.draw([part])


@pytest.mark.usefixtures("one_a_slice")
class TestBetweenSlices:
    @pytest.fixture
    def half(self, ready: LayersDesk) -> LayersDesk:
        """A desk at which the first of nine masks is worked out, and eight are to come."""
        ready.work.painting.draw(add(ready, GRID[:9]))
        assert ready.painted == []
        return ready

    def test_a_press_of_the_mouse_on_the_labels_has_the_rest_drawn(self, half: LayersDesk) -> None:
        event = SimpleNamespace(type="mouse_press")
        drag = half.labels.mouse_drag_callbacks[0](half.labels, event)
        next(drag)
        assert np.array_equal(half.labels.data, expected(GRID[:9]))
        assert half.painted == list(range(1, 10))
        half.undo()
        assert not half.labels.data.any()

    def test_an_object_removed_meanwhile_is_not_drawn_again(self, half: LayersDesk) -> None:
        half.work.painting.remove((9, PLANE))
        half.settle()
        assert np.array_equal(half.labels.data, expected(GRID[:8]))

    def test_a_newer_prediction_leaves_nothing_of_the_one_before(self, half: LayersDesk) -> None:
        predict(half, (1, PLANE), GRID[100])
        half.work.painting.draw([(1, PLANE)])
        half.settle()
        assert np.array_equal(half.mask(1), filled(SHAPE, GRID[100]))
        assert np.array_equal(half.labels.data > 1, expected(GRID[:9]) > 1)
        half.undo()
        assert not half.labels.data.any()

    def test_labels_that_leave_take_all_masks_with_them(self, half: LayersDesk) -> None:
        labels = half.labels
        half.work.painting.drop()
        assert np.array_equal(labels.data, expected(GRID[:9]))


class TestArrivals:
    def test_those_of_one_moment_are_drawn_together_and_the_first_at_once(
        self, ready: LayersDesk, told: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = add(ready, GRID[:50])
        monkeypatch.setattr(ready.session, "awaited", lambda _: ids)
        for part in ids:
            ready.work.painting.arrived(part)
        assert ready.painted == [1]
        ready.wait(lambda: len(ready.painted) == 50)
        assert told["paint"] == 2
        assert np.array_equal(ready.labels.data, expected(GRID[:50]))

    def test_one_that_nobody_else_is_awaited_with_is_drawn_at_once(self, ready: LayersDesk) -> None:
        for part in add(ready, GRID[:3]):
            ready.work.painting.arrived(part)
        assert ready.painted == [1, 2, 3]

    def test_nothing_is_drawn_into_a_stroke_and_the_stroke_wins(self, ready: LayersDesk) -> None:
        ids = add(ready, GRID[:2])
        event = SimpleNamespace(type="mouse_press")
        drag = ready.labels.mouse_drag_callbacks[0](ready.labels, event)
        next(drag)
        ready.work.painting.draw(ids)
        ready.turn()
        assert ready.painted == []
        ready.paint(2, slice(200, 210), slice(200, 210))
        event.type = "mouse_release"
        with pytest.raises(StopIteration):
            next(drag)
        ready.wait(lambda: ready.painted == [1])
        assert np.array_equal(ready.mask(1), filled(SHAPE, GRID[0]))
        assert np.array_equal(ready.mask(2), filled(SHAPE, (200, 200, 210, 210)))
        assert ready.part(2).corrected

    def test_a_click_finds_the_mask_that_has_arrived(
        self, ready: LayersDesk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = add(ready, GRID[:2])
        monkeypatch.setattr(ready.session, "awaited", lambda _: ids)
        for part in ids:
            ready.work.painting.arrived(part)
        layer = ready.work.clicking.ready()
        ready.work.clicking.choose(2)
        layer.add(np.array([[4.0, 24.0]]))
        assert ready.part(2).points
        assert [mask.painted for mask in ready.part(2).masks_before] == [None]


class TestShapes:
    def test_many_boxes_of_a_layer_are_labelled_a_few_times(
        self, desk: LayersDesk, image: np.ndarray, told_labels: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stage_module, "RELABEL_S", 0.002)
        desk.open(image)
        desk.viewer.add_shapes([corners(box) for box in GRID], shape_type="rectangle")
        desk.draw_boxes()
        desk.wait(lambda: set(desk.painted) == set(range(1, len(GRID) + 1)))
        desk.settle()
        assert np.array_equal(desk.labels.data, expected(GRID))
        assert desk.shapes.features["label"].tolist() == [f"{n} object 0.90" for n in desk.ids]
        assert len(told_labels) < 12  # of 144 boxes

    def test_deleted_boxes_come_back_together(self, ready: LayersDesk) -> None:
        ready.add_boxes(*GRID[:6])
        ready.settle()
        ready.shapes.selected_data = {1, 2, 3}
        ready.shapes.remove_selected()
        assert ready.ids == [1, 5, 6]
        for _ in range(3):
            ready.labels.undo()
        ready.settle()
        assert sorted(ready.ids) == [1, 2, 3, 4, 5, 6]
        assert sorted(ready.shapes.features["object"]) == [1, 2, 3, 4, 5, 6]
        assert np.array_equal(ready.labels.data, expected(GRID[:6]))


@pytest.fixture
def told_labels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of shapes each time that they were labelled."""
    counts: list[int] = []
    label = PromptLayer.label

    def counted(self: PromptLayer, *values: Any) -> None:
        counts.append(self.layer.nshapes)
        label(self, *values)

    monkeypatch.setattr(PromptLayer, "label", counted)
    return counts


def test_regions_are_set_together_but_not_over_one_another(ready: LayersDesk) -> None:
    """The second mask lies over the first, which it must see although that is still held back."""
    assert masks_module.HELD_MOST > 2
    ready.choices.policy = "never"
    ready.work.painting.draw(add(ready, [(10, 10, 50, 50), (30, 30, 70, 70)]))
    assert np.array_equal(ready.mask(1), filled(SHAPE, (10, 10, 50, 50)))
    assert ready.mask(2).sum() == 1600 - 400


def test_parts_of_the_document_say_where_their_masks_lie(ready: LayersDesk) -> None:
    ready.work.painting.draw(add(ready, GRID[:30]))
    ready.work.painting.finish()
    assert [part.extent for part in ready.work.document.parts()] == GRID[:30]
