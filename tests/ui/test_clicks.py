"""Clicks with the mouse and the keys: which object they are about, what its mask becomes, and how they are undone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_medsam import CLICK, FakeMedSAM, clicked, square
from napari.layers import Points
from planes import filled
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from ui_desk import Desk

from napari_medsam.demo.pointer import Pointer
from napari_medsam.segment.prompt import Point

A, B = (40, 60, 120, 180), (150, 20, 220, 90)
NO, ALT, CONTROL = (
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.AltModifier,
    Qt.KeyboardModifier.ControlModifier,
)


def knowing() -> dict[str, FakeMedSAM]:
    return {
        "lite-medsam": FakeMedSAM(prompts=frozenset({"box", "point"})),
        "lite-medsam-box": FakeMedSAM(name="lite-medsam-box", decoder_hash="b" * 64),
    }


@pytest.fixture
def desk(open_desk: Callable[..., Desk], image: np.ndarray) -> Desk:
    """A desk with an image, whose model knows clicks."""
    desk = open_desk(models=knowing())
    desk.open(image)
    return desk


@pytest.fixture
def hand(open_desk: Callable[..., Desk], image: np.ndarray) -> tuple[Desk, Pointer]:
    """The same with a window for the mouse, ready to click."""
    desk = open_desk(show=True, models=knowing())
    desk.open(image)
    desk.dock.tools.click.click()
    return desk, Pointer(desk.viewer)


def clicks(desk: Desk) -> Points:
    layer = desk.work.clicking.clicks
    assert layer is not None
    return layer.layer


def click(desk: Desk, *places: tuple[float, float], positive: bool = True, wait: bool = True) -> None:
    """Add points as a script would, and wait for their masks."""
    if desk.work.clicking.clicks is None:
        desk.dock.tools.click.click()
    assert desk.work.clicking.clicks is not None
    desk.work.clicking.clicks.choose_sign(positive)
    for place in places:
        before = len(desk.painted)
        clicks(desk).add(place)
        if wait:
            desk.wait(lambda before=before: len(desk.painted) > before)


def press(
    desk: Desk, pointer: Pointer, place: tuple[float, float], modifier: Qt.KeyboardModifier = NO
) -> None:
    """Click with the left button on a place of the image, a key held, and wait for the mask."""
    before = len(desk.painted)
    at: QPoint = pointer.to_canvas(place)
    QTest.mouseMove(pointer.canvas, at)
    QTest.mouseClick(pointer.canvas, Qt.MouseButton.LeftButton, modifier, at)
    desk.wait(lambda: len(desk.painted) > before)


class TestMouse:
    def test_a_click_begins_an_object_and_an_alt_click_takes_away_from_it(
        self, hand: tuple[Desk, Pointer]
    ) -> None:
        desk, pointer = hand
        press(desk, pointer, (100, 100))
        [part] = desk.parts
        assert part.box is None
        assert [point.positive for point in part.points] == [True]
        assert np.allclose((part.points[0].row, part.points[0].col), (100, 100), atol=1)
        assert desk.mask(part.object_id)[100, 100]
        assert desk.mask(part.object_id).sum() == CLICK**2

        press(desk, pointer, (104, 104), ALT)
        press(desk, pointer, (96, 96), CONTROL)
        [part] = desk.parts
        assert [point.positive for point in part.points] == [True, False, False]
        assert not desk.mask(part.object_id)[104, 104]
        symbols = [str(symbol) for symbol in clicks(desk).symbol]
        assert symbols == ["cross", "hbar", "hbar"]
        assert clicks(desk).face_color[0][1] > clicks(desk).face_color[0][0]  # green
        assert clicks(desk).face_color[1][0] > clicks(desk).face_color[1][1]  # red

        assert np.array_equal(clicks(desk).border_color, clicks(desk).face_color)
        assert not clicks(desk).selected_data

        press(desk, pointer, (130, 100))
        assert [point.positive for point in desk.part(part.object_id).points] == [
            True,
            False,
            False,
            True,
        ]

    def test_keys_choose_the_sign_begin_the_next_object_and_undo(self, hand: tuple[Desk, Pointer]) -> None:
        desk, pointer = hand
        press(desk, pointer, (100, 100))
        first = desk.mask(1)
        desk.qtbot.keyClick(pointer.canvas, Qt.Key.Key_N)
        press(desk, pointer, (104, 104))
        assert not desk.mask(1)[104, 104]
        desk.qtbot.keyClick(pointer.canvas, Qt.Key.Key_Z, CONTROL)
        desk.wait(lambda: np.array_equal(desk.mask(1), first))
        assert len(clicks(desk).data) == 1
        desk.qtbot.keyClick(pointer.canvas, Qt.Key.Key_P)
        desk.qtbot.keyClick(pointer.canvas, Qt.Key.Key_Return)
        assert "new object" in desk.statuses[-1]
        press(desk, pointer, (200, 200))
        assert desk.ids == [1, 2]
        desk.qtbot.keyClick(pointer.canvas, Qt.Key.Key_Backspace)
        desk.wait(lambda: desk.ids == [1])
        assert not desk.mask(2).any()
        assert np.array_equal(desk.mask(1), first)

    def test_a_click_that_is_dragged_elsewhere_asks_anew(self, hand: tuple[Desk, Pointer]) -> None:
        desk, pointer = hand
        press(desk, pointer, (100, 100))
        clicks(desk).mode = "select"
        before = len(desk.painted)
        pointer.drag([(100, 100), (100, 100), (160, 170)])
        desk.wait(lambda: len(desk.painted) > before)
        assert not desk.mask(1)[100, 100]
        assert desk.mask(1)[160, 170]
        assert len(desk.part(1).points) == 1


class TestRefining:
    def test_clicks_refine_the_box_just_drawn_or_selected(self, desk: Desk) -> None:
        desk.add_boxes(A, B)
        click(desk, (100, 100), positive=False)
        assert [len(part.points) for part in desk.parts] == [0, 1]
        desk.work.select(1)
        assert "object 1" in desk.statuses[-1]
        click(desk, (100, 100), positive=False)
        assert np.array_equal(desk.mask(1), clicked(filled((256, 256), A), Point(100, 100, False)))
        assert len(desk.model.decoded) == 2
        desk.shapes.mode = "select"
        desk.shapes.selected_data = {1}
        assert desk.work.clicking.target == 2
        desk.labels.selected_label = 1
        assert desk.work.clicking.target == 1
        desk.dock.tools.next.click()
        assert desk.work.clicking.target is None

    def test_undo_of_clicks_back_to_the_plain_box(self, desk: Desk) -> None:
        desk.add_boxes(A)
        plain = desk.mask(1)
        click(desk, (100, 100), (60, 70), positive=False)
        prompted = len(desk.model.prompted)
        desk.work.clicking.undo()
        assert np.array_equal(desk.mask(1), clicked(plain, Point(100, 100, False)))
        desk.work.clicking.undo()
        assert np.array_equal(desk.mask(1), plain)
        desk.settle()
        assert len(desk.model.prompted) == prompted
        assert len(desk.model.decoded) == 1

    def test_undo_in_the_masks_takes_back_the_pixels_of_one_click(self, desk: Desk) -> None:
        desk.add_boxes(A)
        plain = desk.mask(1)
        click(desk, (100, 100), positive=False)
        desk.undo()
        assert np.array_equal(desk.mask(1), plain)
        desk.redo()
        assert np.array_equal(desk.mask(1), clicked(plain, Point(100, 100, False)))

    def test_a_click_refines_what_was_painted_and_undo_gives_the_paint_back(self, desk: Desk) -> None:
        desk.add_boxes(A)
        desk.paint(1, slice(30, 50), slice(100, 140))
        painted = desk.mask(1)
        click(desk, (100, 100), positive=False)
        assert np.array_equal(desk.mask(1), clicked(painted, Point(100, 100, False)))
        assert desk.part(1).corrected
        desk.work.clicking.undo()
        assert np.array_equal(desk.mask(1), painted)
        assert desk.part(1).corrected

    def test_a_hand_painted_object_can_be_clicked_too(self, desk: Desk) -> None:
        desk.add_boxes(A)
        desk.paint(7, slice(200, 230), slice(200, 230))
        painted = desk.mask(7)
        desk.work.select(7)
        click(desk, (215, 240))
        assert np.array_equal(desk.mask(7), clicked(painted, Point(215, 240)))
        desk.work.clicking.undo()
        assert np.array_equal(desk.mask(7), painted)
        assert desk.ids == [1, 7]

    def test_a_corrected_neighbour_is_not_overwritten(self, desk: Desk) -> None:
        desk.add_boxes(A)
        desk.paint(1, slice(30, 50), slice(100, 140))
        kept = desk.mask(1)
        desk.work.clicking.begin_next()
        click(desk, (120, 100))
        assert np.array_equal(desk.mask(1), kept)
        assert np.array_equal(desk.mask(2), square(Point(120, 100)) & ~kept)

    def test_a_moved_box_keeps_its_clicks(self, desk: Desk) -> None:
        desk.add_boxes(A)
        click(desk, (100, 100), positive=False)
        moved = (50, 70, 130, 190)
        desk.move_box(1, moved)
        assert np.array_equal(desk.mask(1), clicked(filled((256, 256), moved), Point(100, 100, False)))

    def test_a_deleted_box_takes_its_clicks_along_and_undo_brings_both_back(self, desk: Desk) -> None:
        desk.add_boxes(A)
        click(desk, (100, 100), positive=False)
        mask = desk.mask(1)
        desk.delete_box(1)
        assert len(clicks(desk).data) == 0
        desk.undo()
        assert np.array_equal(desk.mask(1), mask)
        assert desk.shapes.nshapes == 1
        assert len(clicks(desk).data) == 1
        click(desk, (60, 70), positive=False, wait=False)
        desk.wait(lambda: len(desk.part(1).points) == 2)


class TestRefused:
    def test_a_minus_click_begins_nothing(self, desk: Desk) -> None:
        click(desk, (100, 100), positive=False, wait=False)
        desk.settle()
        assert desk.ids == []
        assert "plus" in desk.said[-1]
        assert len(clicks(desk).data) == 0

    def test_a_click_beside_the_image_is_refused(self, desk: Desk) -> None:
        click(desk, (300, 100), wait=False)
        desk.settle()
        assert len(clicks(desk).data) == 0
        assert "outside" in desk.said[-1]
        click(desk, (100, 100))
        assert len(clicks(desk).data) == 1

    def test_a_decoder_that_knows_boxes_only_offers_no_clicks(self, desk: Desk) -> None:
        tools = desk.dock.tools
        assert tools.click.isEnabled()
        desk.controller.configure(model="lite-medsam-box")
        desk.wait(lambda: "lite-medsam-box" in tools.click.toolTip())
        assert not tools.click.isEnabled()
        assert "Choose a model" in tools.click.toolTip()
        desk.controller.click_objects()
        assert desk.work.clicking.clicks is None
        desk.controller.configure(model="lite-medsam")
        desk.wait(tools.click.isEnabled)

    def test_an_object_with_clicks_keeps_its_mask_under_such_a_decoder(self, desk: Desk) -> None:
        click(desk, (100, 100))
        mask = desk.mask(1)
        desk.controller.configure(model="lite-medsam-box")
        desk.wait(lambda: any("has learned boxes" in text for text in desk.said))
        assert np.array_equal(desk.mask(1), mask)
        desk.controller.configure(model="lite-medsam")
        before = len(desk.painted)
        desk.wait(lambda: len(desk.painted) > before)
        assert desk.part(1).problem is None


class TestStacks:
    def test_clicks_belong_to_the_slice_they_lie_in(
        self, open_desk: Callable[..., Desk], image: np.ndarray
    ) -> None:
        desk = open_desk(models=knowing())
        desk.open(np.stack([image] * 3))
        desk.viewer.dims.set_point(0, 1)
        desk.settle()
        click(desk, (1, 100, 100))
        click(desk, (2, 50, 50))
        assert [part.plane.index[0] for part in desk.parts] == [1, 2]
        assert np.array_equal(desk.mask(1)[1], square(Point(100, 100)))
        assert not desk.mask(1)[2].any()
        assert np.array_equal(desk.mask(2)[2], square(Point(50, 50)))

    def test_a_click_in_another_view_leaves_the_clicks_of_the_first_alone(
        self, open_desk: Callable[..., Desk], image: np.ndarray
    ) -> None:
        desk = open_desk(models=knowing())
        desk.open(np.stack([image] * 256))
        click(desk, (128, 100, 100))
        mask, said = desk.mask(1), len(desk.said)
        desk.viewer.dims.order = (1, 0, 2)
        desk.settle()
        desk.work.clicking.begin_next()
        click(desk, (30, 128, 30))
        assert [part.plane.displayed for part in desk.parts] == [(1, 2), (0, 2)]
        assert np.array_equal(desk.mask(1), mask)
        assert desk.said[said:] == []

    def test_a_layer_taken_away_keeps_the_objects_and_a_new_one_shows_their_clicks(self, desk: Desk) -> None:
        click(desk, (100, 100))
        mask = desk.mask(1)
        desk.viewer.layers.remove(clicks(desk))
        assert np.array_equal(desk.mask(1), mask)
        desk.dock.tools.click.click()
        assert np.allclose(clicks(desk).data, [[100, 100]])
        desk.work.select(1)
        click(desk, (130, 100))
        grown = desk.mask(1)
        assert grown[130, 100]
        assert (grown & mask).sum() > 0.8 * mask.sum()  # built on the mask before
        assert len(desk.part(1).points) == 2


def test_the_table_and_the_case_tell_of_clicks(desk: Desk) -> None:
    desk.add_boxes(A)
    click(desk, (100, 100), (60, 70), positive=False)
    desk.work.clicking.begin_next()
    click(desk, (200, 200))
    desk.wait(lambda: desk.dock.objects.table.rowCount() == 2)
    column = desk.dock.objects.table.HEADINGS.index("Prompts")
    texts = [desk.dock.objects.table.item(row, column).text() for row in range(2)]
    assert texts == ["box + 2 clicks", "1 click"]

    done = desk.dock.desk.export(desk.folder / "dataset")
    assert done is not None
    desk.wait(done.done)
    from napari_medsam.curation.case_files import read_case

    [path] = done.result()
    first, second = read_case(path).objects
    assert first.prompts.points == ((100.0, 100.0, 0), (60.0, 70.0, 0))
    assert second.prompts.points == ((200.0, 200.0, 1),)
    assert second.box is None
    desk.settle()


class TestShapes:
    """Paths and polygons drawn with the mouse become clicks."""

    def test_a_path_becomes_clicks_on_a_new_object(self, hand: tuple[Desk, Pointer]) -> None:
        desk, pointer = hand
        desk.dock.tools.draw.click()
        desk.shapes.mode = "add_path"
        pointer.drag([(100, 50), (100, 150)])
        desk.wait(lambda: bool(desk.painted))
        [part] = desk.parts
        assert part.box is None
        assert np.allclose([point.col for point in part.points], [60, 80, 100, 120, 140], atol=2)
        assert np.allclose([point.row for point in part.points], 100, atol=2)
        assert desk.mask(1)[100, 52:148].all()
        desk.settle()
        assert desk.shapes.nshapes == 0
        assert len(clicks(desk).data) == 5
        assert desk.viewer.layers.selection.active is desk.shapes
        desk.add_boxes(B)
        assert desk.ids == [1, 2]

    def test_a_polygon_is_a_box_with_clicks_inside(self, hand: tuple[Desk, Pointer]) -> None:
        desk, pointer = hand
        desk.dock.tools.draw.click()
        desk.shapes.mode = "add_polygon_lasso"
        pointer.drag([(40, 60), (40, 180), (120, 180), (120, 60), (42, 62)])
        desk.wait(lambda: bool(desk.painted))
        [part] = desk.parts
        assert part.box is not None
        assert np.allclose(part.box.array(), (40, 60, 120, 180), atol=3)
        assert 1 <= len(part.points) <= 3
        assert all(point.positive for point in part.points)
        desk.settle()
        assert desk.shapes.nshapes == 1
        assert len(clicks(desk).data) == len(part.points)

    def test_without_a_decoder_for_clicks_a_polygon_is_its_box_and_a_path_is_nothing(
        self, mouse_desk: Desk, image: np.ndarray
    ) -> None:
        desk = mouse_desk
        desk.open(image)
        desk.dock.tools.draw.click()
        pointer = Pointer(desk.viewer)
        desk.shapes.mode = "add_path"
        pointer.drag([(100, 50), (100, 150)])
        desk.settle()
        assert "becomes clicks" in desk.said[-1]
        assert desk.ids == []
        assert desk.shapes.nshapes == 1
        desk.shapes.mode = "add_polygon_lasso"
        pointer.drag([(40, 60), (40, 180), (120, 180), (120, 60), (42, 62)])
        desk.wait(lambda: desk.painted == [1])
        assert desk.part(1).points == ()
        assert desk.work.clicking.clicks is None
