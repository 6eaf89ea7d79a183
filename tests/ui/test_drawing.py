"""Boxes drawn, moved, resized and deleted, with the mouse and by scripts: which masks change, and which do not."""

from __future__ import annotations

import numpy as np
from planes import corners, filled, named
from qtpy.QtCore import Qt
from ui_desk import Desk

from napari_medsam.demo.pointer import Pointer

A, B, C = (40, 60, 120, 180), (150, 20, 220, 90), (150, 120, 200, 240)


def near(box: tuple[float, ...], expected: tuple[float, ...], pixels: float = 1.0) -> bool:
    """The mouse hits whole canvas pixels, so a box it draws is right to about one."""
    return np.allclose(box, expected, atol=pixels)


def edges(mask: np.ndarray) -> tuple[int, ...]:
    """The half-open bounds of a mask that must be a filled rectangle."""
    rows, cols = np.nonzero(mask)
    found = (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
    assert np.array_equal(mask, filled(mask.shape, found))
    return tuple(int(edge) for edge in found)


class TestMouse:
    def test_a_drawn_box_decodes_that_object_only_and_fills_its_pixels(
        self, mouse_desk: Desk, image: np.ndarray
    ) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.dock.tools.draw.click()
        hand = Pointer(desk.viewer)

        hand.drag([(39.5, 59.5), (119.5, 179.5)])
        desk.wait(lambda: desk.painted == [1])
        assert len(desk.model.decoded) == 1
        assert near(desk.model.decoded[0], A)
        assert near(edges(desk.mask(1)), A)

        first = desk.labels.data.copy()
        hand.drag([(149.5, 19.5), (219.5, 89.5)])
        desk.wait(lambda: desk.painted == [1, 2])
        assert len(desk.model.decoded) == 2
        assert near(edges(desk.mask(2)), B)
        assert np.array_equal(desk.labels.data == 1, first == 1)
        assert len(desk.model.encoded) == 1

    def test_moving_and_resizing_change_that_mask_only(self, mouse_desk: Desk, image: np.ndarray) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.add_boxes(A, B)
        other = desk.mask(2)
        desk.shapes.mode = "select"
        hand = Pointer(desk.viewer)

        hand.drag([(80, 100), (95, 110)])
        desk.wait(lambda: desk.painted == [1, 2, 1])
        assert near(edges(desk.mask(1)), (55, 70, 135, 190), 1.5)
        assert np.array_equal(desk.mask(2), other)

        r1, c1 = edges(desk.mask(1))[2:]
        hand.drag([(r1 - 0.5, c1 - 0.5), (r1 - 20.5, c1 - 30.5)])
        desk.wait(lambda: desk.painted == [1, 2, 1, 1])
        assert near(edges(desk.mask(1)), (55, 70, r1 - 20, c1 - 30), 2)
        assert np.array_equal(desk.mask(2), other)
        assert len(desk.model.decoded) == 4

    def test_nothing_is_decoded_while_the_mouse_still_drags(
        self, mouse_desk: Desk, image: np.ndarray
    ) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.dock.tools.draw.click()
        hand = Pointer(desk.viewer)
        hand.press((40, 60))
        for step in range(1, 10):
            hand.move((40 + 8 * step, 60 + 8 * step))
        desk.settle()
        assert desk.model.decoded == []
        hand.release((112, 132))
        desk.wait(lambda: desk.painted == [1])

    def test_a_copy_pasted_by_keys_is_a_new_object(self, mouse_desk: Desk, image: np.ndarray) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.add_boxes(A)
        desk.viewer.layers.selection.active = desk.shapes
        desk.shapes.mode = "select"
        desk.shapes.selected_data = {0}
        canvas = Pointer(desk.viewer).canvas
        desk.qtbot.keyClick(canvas, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
        desk.qtbot.keyClick(canvas, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
        desk.wait(lambda: 2 in desk.painted)
        assert list(desk.shapes.features["object"]) == [1, 2]
        desk.move_box(2, C)
        assert np.array_equal(desk.mask(1), filled(image.shape, A))
        assert np.array_equal(desk.mask(2), filled(image.shape, C))

    def test_a_click_without_a_drag_is_no_object(self, mouse_desk: Desk, image: np.ndarray) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.dock.tools.draw.click()
        hand = Pointer(desk.viewer)
        hand.drag([(80, 80)])
        desk.settle()
        assert desk.ids == []
        assert desk.shapes.nshapes == 0
        assert "drag" in desk.said[-1].lower()
        hand.drag([(39.5, 59.5), (119.5, 179.5)])
        desk.wait(lambda: desk.painted == [1])

    def test_a_shape_drawn_outside_is_refused_and_the_tool_still_works(
        self, mouse_desk: Desk, image: np.ndarray
    ) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.dock.tools.draw.click()
        desk.viewer.scene.camera.zoom /= 3
        hand = Pointer(desk.viewer)

        def draw(tool: str, *points: tuple[float, float]) -> None:
            desk.shapes.mode = tool
            if tool != "add_polygon":
                hand.drag([points[0], points[2]])
                return
            for point in points:
                hand.move(point)
                hand.drag([point])
            desk.qtbot.keyClick(hand.canvas, Qt.Key.Key_Escape)

        for number, tool in enumerate(("add_rectangle", "add_polygon", "add_ellipse")):
            with named(tool):
                desk.said.clear()
                draw(tool, (-200, -200), (-200, -100), (-100, -100), (-100, -200))
                desk.settle()
                assert desk.shapes.nshapes == number
                assert "outside" in desk.said[-1]
                draw(tool, (40, 60), (40, 180), (120, 180), (120, 60))
                desk.wait(lambda: desk.ids == desk.painted)
                assert desk.shapes.nshapes == number + 1


class TestClasses:
    def test_number_keys_choose_the_class_of_what_is_drawn_next(
        self, mouse_desk: Desk, image: np.ndarray
    ) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.dock.tools.draw.click()
        hand = Pointer(desk.viewer)
        hand.drag([(39.5, 59.5), (119.5, 179.5)])
        desk.wait(lambda: desk.painted == [1])
        desk.qtbot.keyClick(hand.canvas, Qt.Key.Key_3)
        hand.drag([(149.5, 19.5), (219.5, 89.5)])
        desk.wait(lambda: desk.painted == [1, 2])
        desk.qtbot.keyClick(hand.canvas, Qt.Key.Key_1)
        hand.drag([(149.5, 119.5), (199.5, 239.5)])
        desk.wait(lambda: desk.painted == [1, 2, 3])
        assert [record.class_id for record in desk.work.document] == [1, 3, 1]

    def test_number_keys_change_the_class_of_the_selection(self, mouse_desk: Desk, image: np.ndarray) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.add_boxes(A, B)
        desk.viewer.layers.selection.active = desk.shapes
        desk.shapes.mode = "select"
        desk.shapes.selected_data = {1}
        desk.qtbot.keyClick(Pointer(desk.viewer).canvas, Qt.Key.Key_2)
        assert [record.class_id for record in desk.work.document] == [1, 2]
        assert list(desk.shapes.features["class_id"]) == [1, 2]
        assert desk.model.decoded == [A, B]

    def test_the_class_chosen_in_the_dock_is_that_of_the_next_box(
        self, desk: Desk, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.add_boxes(A)
        desk.dock.objects.classes.add.click()
        desk.add_boxes(B)
        desk.add_boxes(C)
        assert [record.class_id for record in desk.work.document] == [1, 2, 2]

    def test_a_mask_that_arrives_does_not_take_the_class_back(self, desk: Desk, image: np.ndarray) -> None:
        desk.model.hold()
        desk.viewer.add_image(image)
        desk.add_boxes(A, wait=False)
        desk.work.choose_class(2)
        desk.model.release()
        desk.wait(lambda: desk.painted == [1])
        desk.shapes.add_rectangles([corners(B)])
        assert [record.class_id for record in desk.work.document] == [1, 2]

    def test_a_renamed_class_is_written_beside_its_boxes(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        desk.settle()
        desk.dock.objects.classes.list.item(0).setText("gland")
        assert desk.work.document.class_of(1).name == "gland"
        assert desk.shapes.features["label"][0] == "1 gland 0.90"
        desk.wait(lambda: desk.dock.objects.table.item(0, 1).text() == "gland")
