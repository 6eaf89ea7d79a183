"""Painted corrections, overlap policies, and what undo and redo of the labels mean for objects and boxes."""

from __future__ import annotations

import numpy as np
import pytest
from layers_desk import LayersDesk
from planes import filled

from napari_medsam.geometry import Box

A, B = (40, 60, 120, 180), (150, 20, 220, 90)
BRUSHED = slice(30, 50), slice(100, 140)  # across the upper edge of A


@pytest.fixture
def two(desk: LayersDesk, image: np.ndarray) -> LayersDesk:
    """A desk with the objects 1 and 2, masks in place."""
    desk.open(image)
    desk.add_boxes(A)
    desk.add_boxes(B)
    return desk


def corrected(desk: LayersDesk) -> list[bool]:
    return [part.corrected for part in desk.parts]


class TestCorrections:
    def test_the_eraser_corrects_too(self, two: LayersDesk) -> None:
        two.paint(0, slice(50, 60), slice(70, 90))
        assert corrected(two) == [True, False]

    def test_the_polygon_and_the_bucket_correct_too(self, two: LayersDesk) -> None:
        two.labels.paint_polygon([[30, 100], [30, 140], [60, 140], [60, 100]], 1)
        assert corrected(two) == [True, False]
        two.undo()
        assert corrected(two) == [False, False]
        two.labels.fill((200, 50), 0)
        assert corrected(two) == [False, True]
        assert not two.mask(2).any()

    def test_a_stroke_over_two_objects_corrects_both(self, two: LayersDesk, image: np.ndarray) -> None:
        two.paint(2, slice(100, 160), slice(60, 80))
        assert corrected(two) == [True, True]
        for part, box in zip(two.parts, (A, B), strict=True):
            assert part.before is not None
            assert np.array_equal(part.before.within(Box(0, 0, *image.shape)), filled(image.shape, box))

    def test_several_strokes_keep_the_mask_before_the_first(self, two: LayersDesk, image: np.ndarray) -> None:
        two.paint(1, *BRUSHED)
        two.paint(0, slice(50, 70), slice(70, 90))
        before = two.part(1).before
        assert before is not None
        assert np.array_equal(before.within(Box(0, 0, *image.shape)), filled(image.shape, A))

    def test_a_new_label_painted_by_hand_is_an_object_of_the_class_chosen(self, two: LayersDesk) -> None:
        two.work.choose_class(3)
        two.paint(7, slice(0, 10), slice(0, 10))
        part = two.part(7)
        assert (two.work.document[7].class_id, part.box, part.corrected) == (3, None, True)
        assert two.add_boxes((230, 230, 250, 250)) == [8]

    def test_a_box_moved_over_its_corrected_mask_keeps_it_unless_told_otherwise(
        self, two: LayersDesk, image: np.ndarray
    ) -> None:
        two.paint(1, *BRUSHED)
        kept = two.mask(1)
        two.move_box(1, (40, 60, 100, 100), wait=False)
        two.settle()
        assert np.array_equal(two.mask(1), kept)
        assert "keeps your corrected mask" in two.said[-1]
        two.choices.policy = "later"
        two.move_box(1, (40, 60, 110, 100))
        assert np.array_equal(two.mask(1), filled(image.shape, (40, 60, 110, 100)))
        assert corrected(two) == [False, False]

    def test_painting_while_a_box_waits_for_its_mask_wins(self, two: LayersDesk) -> None:
        two.model.hold()
        two.session.cache.clear()
        two.move_box(1, (40, 60, 100, 100), wait=False)
        two.paint(1, *BRUSHED)
        kept = two.mask(1)
        two.model.release()
        two.add_boxes((230, 230, 250, 250))
        assert np.array_equal(two.mask(1), kept)
        assert corrected(two)[0]


class TestPolicies:
    OVER = (80, 100, 180, 200)  # over the lower right of A

    @pytest.fixture
    def one(self, desk: LayersDesk, image: np.ndarray) -> LayersDesk:
        desk.open(image)
        desk.add_boxes(A)
        return desk

    def test_later_wins(self, one: LayersDesk, image: np.ndarray) -> None:
        one.choices.policy = "later"
        one.paint(1, *BRUSHED)
        one.add_boxes(self.OVER)
        assert np.array_equal(one.mask(2), filled(image.shape, self.OVER))

    def test_never_overwrite(self, one: LayersDesk, image: np.ndarray) -> None:
        one.choices.policy = "never"
        one.add_boxes(self.OVER)
        assert np.array_equal(one.mask(1), filled(image.shape, A))
        assert np.array_equal(one.mask(2), filled(image.shape, self.OVER) & ~filled(image.shape, A))

    def test_corrected_masks_and_hand_paint_are_kept_and_predictions_are_not(
        self, one: LayersDesk, image: np.ndarray
    ) -> None:
        assert one.choices.policy == "corrected"
        one.add_boxes(self.OVER)
        assert np.array_equal(one.mask(2), filled(image.shape, self.OVER))
        one.paint(0, slice(100, 110), slice(110, 120))
        one.paint(9, slice(0, 20), slice(0, 20))
        kept = one.labels.data.copy()
        one.add_boxes((0, 0, 200, 256))
        new = one.mask(10)
        assert not (new & ((kept == 2) | (kept == 9))).any()
        assert (new & (kept == 1)).any()
        assert np.array_equal(one.mask(2), kept == 2)
        assert np.array_equal(one.mask(9), kept == 9)

    def test_a_moved_mask_gives_back_what_it_hid(self, one: LayersDesk, image: np.ndarray) -> None:
        one.add_boxes(self.OVER)
        one.move_box(2, (200, 200, 250, 250))
        assert np.array_equal(one.mask(1), filled(image.shape, A))
        assert np.array_equal(one.mask(2), filled(image.shape, (200, 200, 250, 250)))


class TestUndo:
    def test_a_paste_goes_and_comes_back_in_one_step(self, two: LayersDesk, image: np.ndarray) -> None:
        two.undo()
        assert not two.mask(2).any()
        assert np.array_equal(two.mask(1), filled(image.shape, A))
        two.redo()
        assert np.array_equal(two.mask(2), filled(image.shape, B))
        assert two.ids == [1, 2]

    def test_undo_takes_a_correction_back_and_redo_makes_it_again(self, two: LayersDesk) -> None:
        two.paint(1, *BRUSHED)
        painted = two.mask(1)
        two.undo()
        assert corrected(two) == [False, False]
        assert "corrected" not in two.shapes.features["label"][0]
        two.redo()
        assert np.array_equal(two.mask(1), painted)
        assert corrected(two) == [True, False]

    def test_of_two_strokes_undone_one_is_still_a_correction(self, two: LayersDesk) -> None:
        two.paint(1, *BRUSHED)
        two.paint(0, slice(50, 70), slice(70, 90))
        two.undo()
        assert corrected(two) == [True, False]
        two.undo()
        assert corrected(two) == [False, False]

    def test_a_deleted_object_comes_back_with_its_box_and_goes_again_on_redo(
        self, two: LayersDesk, image: np.ndarray
    ) -> None:
        two.delete_box(2)
        assert two.shapes.nshapes == 1
        two.undo()
        assert two.ids == [1, 2]
        assert np.array_equal(two.mask(2), filled(image.shape, B))
        assert list(two.shapes.features["object"]) == [1, 2]
        two.redo()
        assert two.ids == [1]
        assert list(two.shapes.features["object"]) == [1]
        assert not two.mask(2).any()
        two.undo()
        two.move_box(2, (200, 200, 240, 240))
        assert np.array_equal(two.mask(2), filled(image.shape, (200, 200, 240, 240)))
        assert len(two.model.decoded) == 3

    def test_a_revived_object_that_is_drawn_anew_stays(self, two: LayersDesk) -> None:
        two.delete_box(2)
        two.undo()
        two.move_box(2, (200, 200, 240, 240))
        two.undo()
        two.undo()
        assert 2 in two.ids

    def test_hand_paint_undone_and_redone_is_an_object_again(self, two: LayersDesk) -> None:
        two.work.choose_class(2)
        two.paint(9, slice(0, 10), slice(0, 10))
        two.undo()
        assert two.ids == [1, 2]
        two.redo()
        assert two.ids == [1, 2, 9]
        assert two.work.document[9].class_id == 2
        assert two.part(9).corrected

    def test_a_deleted_label_painted_again_is_a_new_object(self, two: LayersDesk) -> None:
        two.delete_box(2)
        two.paint(2, slice(160, 180), slice(30, 50))
        two.settle()
        assert two.part(2).box is None
        two.undo()
        assert two.ids == [1]
        two.undo()
        assert two.ids == [1, 2]
        assert two.part(2).box is not None
        assert list(two.shapes.features["object"]) == [1, 2]

    def test_a_move_undone_leaves_no_stray_pixels_behind_the_next_move(
        self, two: LayersDesk, image: np.ndarray
    ) -> None:
        two.move_box(1, (200, 200, 240, 240))
        two.undo()
        assert np.array_equal(two.mask(1), filled(image.shape, A))
        two.move_box(1, (10, 10, 30, 30))
        assert np.array_equal(two.mask(1), filled(image.shape, (10, 10, 30, 30)))
        two.delete_box(1)
        assert not two.mask(1).any()
        assert np.array_equal(two.mask(2), filled(image.shape, B))

    def test_a_correction_redone_is_not_overwritten(self, two: LayersDesk) -> None:
        two.paint(1, *BRUSHED)
        kept = two.mask(1)
        two.undo()
        two.redo()
        two.add_boxes((30, 90, 60, 150))
        assert np.array_equal(two.mask(1), kept)
