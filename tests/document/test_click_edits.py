"""What changed clicks mean for an object: which masks before them still hold, and what is to be done."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.document.click_edits import ClickEdit, as_it_stands, set_points
from napari_medsam.document.objects import Document, PlaneKey
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import whole_field
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point

SHAPE = (60, 60)
PLANE = PlaneKey((None, None), (0, 1))
BOX = Box(10, 10, 30, 30)
A, B, C = Point(12, 12), Point(25, 25, False), Point(40, 40)
UNKNOWN = MaskBefore()


def predicted(side: int = 20) -> MaskBefore:
    mask = np.ones((side, side), bool)
    return MaskBefore(Prediction(BOX, 10, 10, mask, 0.9, "k", whole_field(SHAPE)))


FIRST, SECOND, NOW = predicted(18), predicted(19), predicted(20)
PAINTED = MaskBefore(NOW.prediction, Patch(5, 5, np.ones((8, 8), bool)))


def known(*masks: MaskBefore) -> list[tuple[Prediction | None, Patch | None]]:
    """What tells masks apart: they compare by identity, and ones that are not known are made anew."""
    return [(mask.prediction, mask.painted) for mask in masks]


def before_each(document: Document, number: int) -> list[tuple[Prediction | None, Patch | None]]:
    return known(*document.part(number, PLANE).masks_before)


@pytest.fixture
def document() -> Document:
    return Document()


def add(
    document: Document,
    *points: Point,
    masks_before: tuple[MaskBefore, ...] = (),
    box: Box | None = BOX,
    corrected: bool = False,
) -> int:
    """An object with a mask, after these clicks."""
    number = document.add(PLANE, box, 1).id
    document.predicted(number, PLANE, NOW.prediction)
    before = Patch(10, 10, np.ones((20, 20), bool)) if corrected else None
    document.update_part(
        number, PLANE, points=points, masks_before=masks_before, before=before, problem="The model went away."
    )
    return number


class TestMore:
    def test_a_click_is_answered_from_the_mask_as_it_stands(self, document: Document) -> None:
        number = add(document)
        assert set_points(document, number, PLANE, (A,), NOW) == ClickEdit(ask=True)
        assert document.part(number, PLANE).points == (A,)
        assert before_each(document, number) == known(NOW)
        assert document.part(number, PLANE).problem is None

    def test_a_second_one_keeps_the_mask_before_the_first(self, document: Document) -> None:
        number = add(document, A, masks_before=(FIRST,))
        assert set_points(document, number, PLANE, (A, B), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(FIRST, NOW)

    def test_of_two_at_once_the_mask_between_is_not_known(self, document: Document) -> None:
        number = add(document)
        assert set_points(document, number, PLANE, (A, B), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(NOW, UNKNOWN)

    def test_what_was_painted_is_before_the_last_of_them(self, document: Document) -> None:
        number = add(document, A, masks_before=(FIRST,), corrected=True)
        assert set_points(document, number, PLANE, (A, B, C), PAINTED) == ClickEdit(ask=True)
        assert before_each(document, number) == known(FIRST, PAINTED, PAINTED)

    def test_other_pixels_of_an_object_nobody_corrected_are_no_paint(self, document: Document) -> None:
        number = add(document, A, masks_before=(FIRST,))
        set_points(document, number, PLANE, (B,), PAINTED)
        assert before_each(document, number) == known(FIRST)


class TestOther:
    def test_the_same_clicks_ask_for_nothing(self, document: Document) -> None:
        number = add(document, A, masks_before=(FIRST,))
        assert set_points(document, number, PLANE, (A,), NOW) == ClickEdit()
        assert before_each(document, number) == known(FIRST)
        assert document.part(number, PLANE).problem is not None

    def test_one_that_moved_is_answered_from_the_mask_before_it(self, document: Document) -> None:
        number = add(document, A, B, masks_before=(FIRST, SECOND))
        assert set_points(document, number, PLANE, (A, C), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(FIRST, SECOND)
        assert set_points(document, number, PLANE, (B, C), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(
            FIRST, UNKNOWN
        )  # the second one's mask held for the first only

    def test_clicks_after_the_paint_still_refine_it_when_one_before_it_goes(self, document: Document) -> None:
        number = add(document, A, B, C, masks_before=(FIRST, PAINTED, SECOND), corrected=True)
        assert set_points(document, number, PLANE, (B, C), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(PAINTED, UNKNOWN)

    def test_and_when_one_before_it_moved(self, document: Document) -> None:
        number = add(document, A, B, C, masks_before=(FIRST, SECOND, PAINTED), corrected=True)
        assert set_points(document, number, PLANE, (C, B, C), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(FIRST, UNKNOWN, PAINTED)

    def test_the_latest_paint_holds(self, document: Document) -> None:
        other = MaskBefore(painted=Patch(0, 0, np.ones((3, 3), bool)))
        number = add(document, A, B, C, masks_before=(FIRST, other, PAINTED), corrected=True)
        set_points(document, number, PLANE, (B, C), NOW)
        assert before_each(document, number) == known(FIRST, PAINTED)

    def test_clicks_on_the_paint_itself_begin_from_it(self, document: Document) -> None:
        number = add(document, A, B, masks_before=(FIRST, PAINTED), corrected=True)
        assert set_points(document, number, PLANE, (A, C, B), NOW) == ClickEdit(ask=True)
        assert before_each(document, number) == known(FIRST, PAINTED, UNKNOWN)


class TestFewer:
    def test_the_mask_before_a_click_comes_back_with_it(self, document: Document) -> None:
        number = add(document, A, B, masks_before=(FIRST, SECOND))
        assert set_points(document, number, PLANE, (A,), NOW).restore is SECOND
        assert (document.part(number, PLANE).points, before_each(document, number)) == ((A,), known(FIRST))
        assert set_points(document, number, PLANE, (), NOW) == ClickEdit(restore=FIRST)
        assert (document.part(number, PLANE).points, document.part(number, PLANE).masks_before) == ((), ())

    def test_of_several_the_mask_before_the_first_that_went(self, document: Document) -> None:
        number = add(document, A, B, C, masks_before=(FIRST, SECOND, NOW))
        assert set_points(document, number, PLANE, (A,), NOW).restore is SECOND

    def test_paint_comes_back_rather_than_an_earlier_mask(self, document: Document) -> None:
        number = add(document, A, B, C, masks_before=(FIRST, PAINTED, SECOND))
        assert set_points(document, number, PLANE, (), NOW) == ClickEdit(restore=PAINTED)
        older = MaskBefore(painted=Patch(0, 0, np.ones((3, 3), bool)))
        twice = add(document, A, B, C, masks_before=(older, PAINTED, SECOND))
        assert set_points(document, twice, PLANE, (), NOW) == ClickEdit(restore=PAINTED)

    def test_an_object_painted_since_its_click_keeps_the_paint(self, document: Document) -> None:
        number = add(document, A, masks_before=(FIRST,), corrected=True)
        assert set_points(document, number, PLANE, (), PAINTED) == ClickEdit(kept=True)

    def test_where_no_mask_is_known_it_is_asked_for(self, document: Document) -> None:
        number = add(document, A, masks_before=(UNKNOWN,))
        assert set_points(document, number, PLANE, (), NOW) == ClickEdit(ask=True)

    def test_an_object_of_clicks_alone_goes_with_the_last(self, document: Document) -> None:
        number = add(document, A, masks_before=(UNKNOWN,), box=None)
        assert set_points(document, number, PLANE, (), NOW) == ClickEdit(gone=True)
        again = add(document, A, B, masks_before=(UNKNOWN, UNKNOWN), box=None)
        assert set_points(document, again, PLANE, (A,), NOW) == ClickEdit(ask=True)


class TestAsItStands:
    """The labels around an object, read as the window reads them."""

    @staticmethod
    def standing(document: Document, labels: np.ndarray) -> MaskBefore:
        number = add(document)
        part = document.update_part(number, PLANE, extent=Box(5, 5, 45, 45))

        def read(bounds: tuple[int, int, int, int]) -> np.ndarray:
            r0, c0, r1, c1 = bounds
            return labels[r0:r1, c0:c1] * number

        return as_it_stands(part, read)

    @staticmethod
    def labels() -> np.ndarray:
        labels = np.zeros(SHAPE, int)
        labels[10:30, 10:30] = 1
        return labels

    def test_as_predicted(self, document: Document) -> None:
        found = self.standing(document, self.labels())
        assert (found.prediction, found.painted) == (NOW.prediction, None)

    @pytest.mark.parametrize(("where", "value", "area"), [((29, 29), 0, 399), ((31, 12), 1, 401)])
    def test_an_eraser_and_a_brush_are_seen(
        self, document: Document, where: tuple[int, int], value: int, area: int
    ) -> None:
        labels = self.labels()
        labels[where] = value
        found = self.standing(document, labels)
        assert found.painted is not None
        full = found.painted.within(Box(0, 0, *SHAPE))
        assert np.array_equal(full, labels == 1)
        assert full.sum() == area

    def test_pixels_under_another_object_and_labels_that_are_all_gone_are_not(
        self, document: Document
    ) -> None:
        labels = self.labels()
        labels[20:30, 20:30] = 7
        assert self.standing(document, labels).painted is None
        assert self.standing(document, np.zeros(SHAPE, int)).painted is None

    def test_nothing_can_be_read(self, document: Document) -> None:
        assert as_it_stands(document.part(add(document), PLANE), None).prediction is NOW.prediction
        empty = document.add(PLANE, None, 1).id
        assert as_it_stands(document.part(empty, PLANE), lambda _: np.ones((1, 1), int)).patch is None
