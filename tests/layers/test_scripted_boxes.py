"""Boxes that scripts add, move and delete, and layers that are put to work: which masks change, and which do not."""

from __future__ import annotations

import numpy as np
import pytest
from layers_desk import LayersDesk
from napari.layers import Shapes
from planes import corners, filled

A, B, C = (40, 60, 120, 180), (150, 20, 220, 90), (150, 120, 200, 240)


class TestScripts:
    def test_deleting_takes_that_mask_and_gives_back_what_lay_beneath(
        self, desk: LayersDesk, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.choices.policy = "later"
        below, above = (40, 60, 120, 180), (80, 100, 160, 200)
        desk.add_boxes(below)
        desk.add_boxes(above)
        assert np.array_equal(desk.mask(2), filled(image.shape, above))
        assert not desk.mask(1)[100, 120]
        desk.delete_box(2)
        assert np.array_equal(desk.mask(1), filled(image.shape, below))
        assert not desk.mask(2).any()
        assert desk.ids == [1]
        assert len(desk.model.decoded) == 2

    def test_boxes_that_cannot_be_used_are_taken_off_with_a_message(
        self, desk: LayersDesk, image: np.ndarray
    ) -> None:
        desk.open(image)
        flat, thin, away = (50, 50, 50, 90), (50, 50, 90, 50), (300, 10, 340, 60)
        desk.add_boxes(A, flat, thin, away, B)
        assert [("no area" in text, "outside" in text) for text in desk.said] == [
            (True, False),
            (True, False),
            (False, True),
        ]
        desk.settle()
        assert list(desk.shapes.features["object"]) == [1, 2]
        assert np.array_equal(desk.mask(1), filled(image.shape, A))
        assert np.array_equal(desk.mask(2), filled(image.shape, B))

    def test_a_box_over_the_edge_is_clipped(self, desk: LayersDesk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes((-20, 200, 40, 300))
        assert np.array_equal(desk.mask(1), filled(image.shape, (0, 200, 40, 256)))

    def test_moving_a_box_outside_tells_and_keeps_its_mask(self, desk: LayersDesk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        before = desk.labels.data.copy()
        desk.move_box(1, (300, 300, 340, 340), wait=False)
        assert "outside" in desk.said[-1]
        assert desk.part(1).problem
        assert np.array_equal(desk.labels.data, before)
        desk.move_box(1, B)
        assert np.array_equal(desk.mask(1), filled(image.shape, B))
        assert desk.part(1).problem is None

    def test_the_middle_one_of_three_goes_and_the_others_keep_their_ids(
        self, desk: LayersDesk, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.add_boxes(A, B, C)
        desk.delete_box(2)
        assert list(desk.shapes.features["object"]) == [1, 3]
        desk.move_box(3, B)
        assert np.array_equal(desk.mask(3), filled(image.shape, B))
        assert np.array_equal(desk.mask(1), filled(image.shape, A))

    def test_shapes_brought_to_the_front_or_back_stay_their_objects(
        self, desk: LayersDesk, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.add_boxes(A, B, C)
        desk.shapes.selected_data = {0}
        desk.shapes.move_to_front()
        desk.shapes.selected_data = {2}
        desk.shapes.move_to_back()
        desk.move_box(1, (10, 10, 30, 30))
        assert np.array_equal(desk.mask(1), filled(image.shape, (10, 10, 30, 30)))
        assert np.array_equal(desk.mask(3), filled(image.shape, C))

    def test_lines_and_paths_are_no_prompts(self, desk: LayersDesk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        desk.shapes.add_lines(np.array([[10.0, 10], [80, 80]]))
        desk.shapes.add_paths(np.array([[10.0, 10], [80, 80], [20, 90]]))
        desk.settle()
        assert desk.ids == [1]
        assert desk.said == []
        desk.add_boxes(B)
        assert desk.ids == [1, 2]
        assert list(desk.shapes.features["object"]) == [1, 0, 0, 2]

    def test_polygons_and_ellipses_prompt_with_the_box_around_them(
        self, desk: LayersDesk, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.draw_boxes()
        desk.shapes.add_polygons(np.array([[39.5, 100], [119.5, 59.5], [100, 179.5]]))
        desk.shapes.add_ellipses(corners(B))
        desk.wait(lambda: set(desk.painted) == {1, 2})
        assert np.array_equal(desk.mask(1), filled(image.shape, A))
        assert np.array_equal(desk.mask(2), filled(image.shape, B))

    def test_many_boxes_at_once_are_encoded_once_and_decoded_once_each(
        self, desk: LayersDesk, image: np.ndarray
    ) -> None:
        desk.open(image)
        boxes = [(r, c, r + 20, c + 20) for r in range(0, 240, 40) for c in range(0, 240, 40)]
        ids = desk.add_boxes(*boxes)
        assert len(ids) == 36
        assert len(desk.model.decoded) == 36
        assert len(desk.model.encoded) == 1
        assert all(
            np.array_equal(desk.mask(object_id), filled(image.shape, box))
            for object_id, box in zip(ids, boxes, strict=True)
        )


class TestOwnShapesLayer:
    @pytest.fixture
    def own(self, desk: LayersDesk, image: np.ndarray) -> Shapes:
        desk.open(image)
        return desk.viewer.add_shapes(
            [corners(A), corners(B)], shape_type="rectangle", features={"note": ["x", "y"]}, name="mine"
        )

    def test_the_selected_layer_is_used_and_its_boxes_become_objects(
        self, desk: LayersDesk, own: Shapes, image: np.ndarray
    ) -> None:
        desk.viewer.layers.selection.active = own
        desk.draw_boxes()
        desk.wait(lambda: set(desk.painted) == {1, 2})
        assert desk.shapes is own
        assert [type(layer).__name__ for layer in desk.viewer.layers] == ["Image", "Labels", "Shapes"]
        assert list(own.features["note"]) == ["x", "y"]
        assert np.array_equal(desk.mask(1), filled(image.shape, A))
        desk.add_boxes(C)
        assert np.array_equal(desk.mask(3), filled(image.shape, C))
        assert list(own.features["object"]) == [1, 2, 3]

    def test_a_layer_that_is_not_selected_is_left_alone(self, desk: LayersDesk, own: Shapes) -> None:
        desk.viewer.layers.selection.active = desk.work.image
        desk.draw_boxes()
        assert desk.shapes is not own
        assert "object" not in own.features

    def test_another_layer_can_take_over_and_the_old_boxes_keep_their_masks(
        self, desk: LayersDesk, own: Shapes, image: np.ndarray
    ) -> None:
        desk.viewer.layers.selection.active = desk.work.image
        desk.add_boxes(C)
        desk.viewer.layers.selection.active = own
        desk.draw_boxes()
        desk.wait(lambda: set(desk.painted) == {1, 2, 3})
        assert desk.shapes is own
        assert np.array_equal(desk.mask(1), filled(image.shape, C))
        assert list(own.features["object"]) == [2, 3]
