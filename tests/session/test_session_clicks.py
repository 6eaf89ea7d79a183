"""Clicks without a window: each is answered from the mask before it, on the field that fits, whatever came between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fake_medsam import FakeLoader, FakeMedSAM, clicked, shown, square
from test_session import BIG, KEY, SMALL, Bench, inside, make_plane

from napari_medsam.document.click_edits import ClickEdit, as_it_stands, set_points
from napari_medsam.document.objects import Document
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prompt import Point
from napari_medsam.session.settings import Settings

CLICKS = frozenset({"box", "point"})
IN_BIG, BESIDE_BIG = Point(100, 100, False), Point(220, 100)


class ClickBench(Bench):
    """A bench whose model has learned clicks."""

    def click(
        self, number: int, plane: Plane, *points: Point, standing: MaskBefore | None = None
    ) -> ClickEdit:
        """Give an object these clicks and wait for the last answer, as the window does."""
        part = self.document.part(number, KEY)
        change = set_points(self.document, number, KEY, points, standing or as_it_stands(part, None))
        if change.ask:
            self.session.request(self.document, [(number, KEY)], plane)
            self.settle()
        return change

    def settle(self) -> None:
        self.wait(lambda: not self.session.awaited(self.document))

    def begin(self, plane: Plane, *points: Point) -> int:
        number = self.document.add(KEY, None, 1).id
        self.click(number, plane, *points)
        return number


@pytest.fixture
def make_clicks(tmp_path: Path) -> Callable[..., ClickBench]:
    def make(prompts: frozenset[str] = CLICKS, **settings: object) -> ClickBench:
        loader = FakeLoader({"lite-medsam": FakeMedSAM(prompts=prompts)})
        chosen = Settings(ahead=False, **settings)  # type: ignore[arg-type]
        made.append(ClickBench(tmp_path, loader, chosen))
        return made[-1]

    made: list[ClickBench] = []
    yield make  # type: ignore[misc]
    for bench in made:
        bench.session.close()


@pytest.fixture
def bench(make_clicks: Callable[..., ClickBench]) -> ClickBench:
    return make_clicks()


class TestBoxAndClicks:
    def test_clicks_add_and_take_away_one_decode_each(self, bench: ClickBench) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.settle()
        bench.click(number, plane, IN_BIG)
        assert np.array_equal(bench.mask(number), clicked(inside(BIG), IN_BIG))
        bench.click(number, plane, IN_BIG, BESIDE_BIG)
        assert np.array_equal(bench.mask(number), clicked(inside(BIG), IN_BIG, BESIDE_BIG))
        assert len(bench.model.decoded) == 1  # the box, once
        assert [len(said.points) for said in bench.model.prompted] == [1, 2]
        assert all(said.mask is not None for said in bench.model.prompted)

    def test_a_click_is_built_on_the_mask_before_it(self, bench: ClickBench) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.settle()
        bench.click(number, plane, IN_BIG)
        [said] = bench.model.prompted
        assert said.mask is not None
        assert np.array_equal(said.mask > 0, shown(inside(BIG), IN_BIG))
        assert said.box is not None
        assert np.allclose(said.box, BIG.array())

    def test_taking_the_last_click_back_restores_the_mask_and_decodes_nothing(
        self, bench: ClickBench
    ) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.settle()
        bench.click(number, plane, IN_BIG)
        one = bench.document.part(number, KEY).prediction
        bench.click(number, plane, IN_BIG, BESIDE_BIG)
        change = bench.click(number, plane, IN_BIG)
        assert change.restore is not None
        assert change.restore.prediction is one
        change = bench.click(number, plane)
        assert change.restore is not None
        assert change.restore.prediction is not None
        assert np.array_equal(change.restore.prediction.full(plane.shape), inside(BIG))
        assert len(bench.model.prompted) == 2

    def test_a_click_that_moves_takes_its_old_place_out_of_the_mask(self, bench: ClickBench) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.settle()
        bench.click(number, plane, IN_BIG, BESIDE_BIG)
        moved = Point(60, 60, False)
        bench.click(number, plane, moved, BESIDE_BIG)
        assert np.array_equal(bench.mask(number), clicked(inside(BIG), moved, BESIDE_BIG))

    def test_clicks_at_once_give_what_they_give_one_by_one(self, bench: ClickBench) -> None:
        plane, points = make_plane(), (IN_BIG, BESIDE_BIG, Point(30, 200, False))
        one, other = bench.add(plane, BIG, BIG)
        bench.click(one, plane, *points)
        for count in range(1, 4):
            bench.click(other, plane, *points[:count])
        assert np.array_equal(bench.mask(one), bench.mask(other))

    def test_a_small_box_s_clicks_are_replayed_on_its_own_field(self, bench: ClickBench) -> None:
        plane = make_plane()
        [number] = bench.add(plane, SMALL)
        bench.click(number, plane, Point(105, 105, False))  # at once: the box is not answered yet
        found = bench.document.part(number, KEY).prediction
        assert found is not None
        assert found.field.kind == "centred"
        assert bench.document.part(number, KEY).masks_before[0].prediction is not None
        assert bench.document.part(number, KEY).masks_before[0].prediction.key == found.key
        assert not found.full(plane.shape)[105, 105]
        assert found.full(plane.shape)[118, 128]

    def test_another_decoder_builds_on_none_of_the_old_masks(self, bench: ClickBench) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.click(number, plane, IN_BIG)
        bench.document.outdate(number, KEY)
        bench.model.decoded.clear()
        bench.session.request(bench.document, [(number, KEY)], plane)
        bench.settle()
        assert len(bench.model.decoded) == 1

    def test_a_decoder_that_knows_boxes_only_refuses_clicks_and_answers_boxes(
        self, make_clicks: Callable[..., ClickBench]
    ) -> None:
        bench, plane = make_clicks(prompts=frozenset({"box"})), make_plane()
        [number] = bench.add(plane, BIG)
        bench.settle()
        bench.click(number, plane, IN_BIG)
        [(failed, text)] = bench.all("failed")
        assert failed == number
        assert "clicks" in text
        assert "lite-medsam" in text
        assert np.array_equal(bench.mask(number), inside(BIG))


class TestLoneClicks:
    def test_a_click_alone_is_answered_from_the_whole_plane_then_from_the_field_that_fits(
        self, bench: ClickBench
    ) -> None:
        plane = make_plane(shape=(512, 512))
        number = bench.begin(plane, Point(100, 100))
        found = bench.document.part(number, KEY).prediction
        assert found is not None
        assert found.full(plane.shape)[100, 100]
        fields = len(bench.model.encoded)
        assert 2 <= fields <= 4
        assert bench.document.part(number, KEY).masks_before[0].patch is None

    def test_further_clicks_stay_on_the_field_of_the_mask(
        self, make_clicks: Callable[..., ClickBench]
    ) -> None:
        bench = make_clicks(field="whole")
        plane = make_plane()
        number = bench.begin(plane, IN_BIG_PLUS := Point(100, 100))
        bench.click(number, plane, IN_BIG_PLUS, Point(104, 104, False))
        assert np.array_equal(bench.mask(number), clicked(square(IN_BIG_PLUS), Point(104, 104, False)))
        assert len(bench.model.encoded) == 1

    def test_a_close_view_is_looked_at_first(self, make_clicks: Callable[..., ClickBench]) -> None:
        bench, plane = make_clicks(), make_plane(shape=(1024, 1024))
        bench.session.show(plane, Box(300, 300, 400, 400))
        bench.wait(lambda: bool(bench.all("shown")))
        lookup = bench.session._lookup
        click = Box(350, 350, 351, 351)
        near = lookup.fields_around(click, plane, "auto", None, Box(300, 300, 400, 400))
        assert near[0].kind == "grid"
        assert near[0].height == 64
        assert near[0].box.contains(click)
        far = lookup.fields_around(click, plane, "auto", None, Box(0, 0, 1024, 1024))
        assert far[0] == whole_field(plane.shape)
        assert lookup.fields_around(click, plane, "whole", near[0], None) == [whole_field(plane.shape)]
        assert lookup.fields_around(click, plane, "auto", near[0], None)[0] == near[0]

    def test_no_click_on_the_object_is_no_prompt(self, bench: ClickBench) -> None:
        number = bench.document.add(KEY, None, 1).id
        set_points(bench.document, number, KEY, (Point(5, 5, False),), MaskBefore())
        bench.session.request(bench.document, [(number, KEY)], make_plane())
        assert bench.session.awaited(bench.document) == []


class TestPainted:
    """Masks that a person painted are refined by clicks, and never lost by them."""

    PAINTED = Patch(40, 40, np.ones((30, 30), bool))

    def painted(self, bench: ClickBench) -> tuple[int, Plane, MaskBefore]:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.settle()
        part = bench.document.update_part(
            number, KEY, before=bench.document.part(number, KEY).patch, extent=Box(0, 0, 256, 256)
        )
        return number, plane, as_it_stands(part, partial(self.read, number))

    def read(self, number: int, bounds: Box) -> np.ndarray:
        return np.where(self.PAINTED.within(bounds), number, 0)

    def test_what_was_painted_is_the_mask_prompt_and_the_object_stays_corrected(
        self, bench: ClickBench
    ) -> None:
        number, plane, standing = self.painted(bench)
        assert standing.painted is not None
        bench.click(number, plane, Point(60, 100), standing=standing)
        expected = clicked(self.PAINTED.within(Box(0, 0, 256, 256)), Point(60, 100))
        assert np.array_equal(bench.mask(number), expected)
        assert bench.document[number].corrected

    def test_undoing_the_click_brings_the_paint_back(self, bench: ClickBench) -> None:
        number, plane, standing = self.painted(bench)
        bench.click(number, plane, Point(60, 100), standing=standing)
        change = bench.click(number, plane)
        assert change.restore is not None
        assert change.restore.painted is standing.painted

    def test_a_click_from_before_the_painting_taken_back_keeps_the_paint(self, bench: ClickBench) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.click(number, plane, IN_BIG)
        part = bench.document.update_part(
            number, KEY, before=bench.document.part(number, KEY).patch, extent=Box(0, 0, 256, 256)
        )
        standing = as_it_stands(part, partial(self.read, number))
        bench.click(number, plane, IN_BIG, Point(60, 100), standing=standing)
        bench.click(number, plane, Point(60, 100))  # the first one, which came before the brush
        expected = clicked(self.PAINTED.within(Box(0, 0, 256, 256)), Point(60, 100))
        assert np.array_equal(bench.mask(number), expected)
        assert bench.document[number].corrected
        assert bench.click(number, plane).restore is not None

    def test_painted_after_its_click_an_object_keeps_the_paint_when_the_click_goes(
        self, bench: ClickBench
    ) -> None:
        plane = make_plane()
        [number] = bench.add(plane, BIG)
        bench.click(number, plane, IN_BIG)
        part = bench.document.update_part(
            number, KEY, before=bench.document.part(number, KEY).patch, extent=Box(0, 0, 256, 256)
        )
        standing = as_it_stands(part, partial(self.read, number))
        assert bench.click(number, plane, standing=standing) == ClickEdit(kept=True)


class TestDocument:
    def test_pixels_that_another_object_took_are_no_change_of_ones_own(self) -> None:
        document = Document()
        number = document.add(KEY, BIG, 1).id
        part = document.predicted(number, KEY, make_prediction(inside(BIG)))
        labels = np.where(inside(BIG), number, 0)
        labels[30:60, 40:80] = 9

        def read(bounds: Box) -> np.ndarray:
            r0, c0, r1, c1 = bounds
            return labels[r0:r1, c0:c1]

        assert as_it_stands(part, read).painted is None
        labels[100:110, 100:110] = 0
        assert as_it_stands(part, read).painted is not None

    def test_the_last_click_of_an_object_without_a_box_takes_it_along(self) -> None:
        document = Document()
        number = document.add(KEY, None, 1).id
        assert set_points(document, number, KEY, (Point(1, 1),), MaskBefore()) == ClickEdit(ask=True)
        assert set_points(document, number, KEY, (), MaskBefore()) == ClickEdit(gone=True)
        assert set_points(document, number, KEY, (), MaskBefore()) == ClickEdit()


def make_prediction(mask: np.ndarray):  # type: ignore[no-untyped-def]
    from napari_medsam.segment.prediction import Prediction

    return Prediction(None, 0, 0, mask, 0.9, "k", whole_field(mask.shape))


class TestPeek:
    def test_a_look_is_answered_from_what_is_embedded_and_leaves_no_trace(self, bench: ClickBench) -> None:
        plane, seen = make_plane(), []
        bench.session.peek(plane, BIG, seen.append)
        bench.wait(lambda: len(seen) == 1)
        assert seen == [None]  # neither a model nor an embedding yet, and none is asked for
        assert bench.model.encoded == []
        bench.session.show(plane)
        bench.wait(lambda: bool(bench.all("shown")))
        bench.session.peek(plane, BIG, seen.append)
        bench.wait(lambda: len(seen) == 2)
        assert seen[1] is not None
        assert np.array_equal(seen[1].full(plane.shape), inside(BIG))
        assert len(bench.document) == 0
        assert bench.all("predicted") == []

    def test_a_decoder_that_fails_gives_no_look_and_says_nothing(self, bench: ClickBench) -> None:
        plane, seen = make_plane(), []
        bench.session.show(plane)
        bench.wait(lambda: bool(bench.all("shown")))
        bench.model.decode_error = RuntimeError("broke")
        bench.session.peek(plane, BIG, seen.append)
        bench.wait(lambda: len(seen) == 1)
        assert seen == [None]
        assert bench.all("failed") == []
