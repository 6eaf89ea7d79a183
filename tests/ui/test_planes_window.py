"""One object on several slices: painted, clicked, moved, shown in one row, exported, and back after a reopen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_medsam import FakeMedSAM, square
from planes import corners, filled
from test_journal_window import looked, reopened, restored, text
from ui_desk import Desk

from napari_medsam.document.objects import Part, PlaneKey
from napari_medsam.geometry import Box
from napari_medsam.segment.prompt import Point

A, B = (40, 60, 120, 180), (150, 20, 220, 90)
PATCH = slice(130, 150), slice(60, 90)


def plane(z: int) -> PlaneKey:
    return PlaneKey((z, None, None), (1, 2))


@pytest.fixture
def desk(open_desk: Callable[..., Desk], image: np.ndarray) -> Desk:
    """A desk with a stack, whose model knows clicks."""
    desk = open_desk(models={"lite-medsam": FakeMedSAM(prompts=frozenset({"box", "point"}))})
    desk.open(np.stack([image] * 4), name="stack")
    return desk


def go_to(desk: Desk, z: int) -> None:
    desk.viewer.dims.set_point(0, z)
    desk.settle()


def row(desk: Desk, number: int = 0) -> dict[str, str]:
    """What the table says of an object."""
    table = desk.dock.objects.table
    desk.settle()
    desk.settle()
    return {name: table.item(number, column).text() for column, name in enumerate(table.HEADINGS)}


class TestPainted:
    def test_a_label_on_another_slice_is_that_object_there(self, desk: Desk, image: np.ndarray) -> None:
        desk.add_boxes_at((0,), A)
        go_to(desk, 2)
        desk.paint(1, *PATCH)
        assert list(desk.work.document[1].parts) == [plane(0), plane(2)]
        drawn, painted = desk.parts
        assert (drawn.corrected, painted.corrected) == (False, True)
        assert (painted.box, painted.prediction, painted.origin) == (None, None, "drawn")
        desk.wait(lambda: desk.dock.objects.table.rowCount() == 1)
        assert row(desk)["Planes"] == "0, 2"
        assert row(desk)["State"] == "corrected"

        desk.undo()
        assert list(desk.work.document[1].parts) == [plane(0)]
        assert np.array_equal(desk.mask(1)[0], filled(image.shape, A))
        desk.redo()
        assert list(desk.work.document[1].parts) == [plane(0), plane(2)]

    def test_it_comes_back_after_a_reopen_and_undo_takes_it_away(self, desk: Desk, image: np.ndarray) -> None:
        desk.add_boxes_at((0,), A)
        go_to(desk, 2)
        desk.paint(1, *PATCH)
        labels = np.array(desk.labels.data)
        reopened(desk, np.stack([image] * 4), name="stack")
        looked(desk)
        assert text(desk).startswith("1 object from today")  # type: ignore[union-attr]
        restored(desk)
        assert np.array_equal(desk.labels.data, labels)
        assert [(part.key, part.corrected) for part in desk.parts] == [
            ((1, plane(0)), False),
            ((1, plane(2)), True),
        ]
        go_to(desk, 3)
        desk.paint(1, *PATCH)
        assert len(desk.parts) == 3
        desk.undo()
        assert list(desk.work.document[1].parts) == [plane(0), plane(2)]

    def test_a_brush_through_several_slices_makes_a_part_on_each(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        cube = np.mgrid[0:3, 130:150, 60:90].reshape(3, -1)
        desk.labels.data_setitem(tuple(cube), 1)
        desk.labels.data_setitem(tuple(np.mgrid[1:4, 0:9, 0:9].reshape(3, -1)), 7)
        assert [list(record.parts) for record in desk.work.document] == [
            [plane(0), plane(1), plane(2)],
            [plane(1), plane(2), plane(3)],
        ]
        assert desk.part_on(1, 0).box is not None
        assert desk.part_on(1, 0).corrected
        desk.undo()
        desk.undo()
        assert [part.key for part in desk.parts] == [(1, plane(0))]
        assert not desk.part_on(1, 0).corrected

    def test_an_eraser_leaves_the_part_as_it_does_on_one_plane(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        go_to(desk, 1)
        desk.paint(1, *PATCH)
        desk.paint(0, *PATCH)
        assert list(desk.work.document[1].parts) == [plane(0), plane(1)]
        assert not desk.mask(1)[1].any()

    def test_in_a_view_along_another_axis_it_is_a_part_there(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        desk.viewer.dims.order = (1, 0, 2)
        desk.viewer.dims.set_point(1, 50)
        desk.settle()
        desk.labels.data_setitem(tuple(np.mgrid[0:4, 50:51, 100:110].reshape(3, -1)), 9)
        across = PlaneKey((None, 50, None), (0, 2))
        assert list(desk.work.document[9].parts) == [across]
        assert desk.part_on(1, 0).corrected  # the stroke took pixels of it


class TestClicked:
    def test_an_object_that_was_picked_goes_on_where_it_is_not_yet(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        desk.dock.tools.click.click()
        assert desk.work.clicking.clicks is not None
        layer = desk.work.clicking.clicks.layer
        assert "On another slice a plus click begins a new one" in desk.statuses[-1]
        desk.work.select(1)
        assert "Where it is not yet, a plus click adds it" in desk.statuses[-1]
        go_to(desk, 1)
        layer.add((1, 100, 100))
        desk.wait(lambda: desk.mask(1)[1].any())
        assert desk.ids == [1]
        assert np.array_equal(desk.mask(1)[1], square(Point(100, 100)))
        assert [len(part.points) for part in desk.parts] == [0, 1]
        layer.add((1, 130, 100))
        desk.wait(lambda: len(desk.part_on(1, 1).points) == 2)
        assert row(desk)["Prompts"] == "box + 2 clicks"

        desk.work.clicking.undo()
        desk.work.clicking.undo()
        assert [part.key for part in desk.parts] == [(1, plane(0))]
        assert not desk.mask(1)[1].any()
        assert desk.work.clicking.target == 1

    def test_a_minus_click_begins_no_part(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        desk.dock.tools.click.click()
        desk.work.select(1)
        assert desk.work.clicking.clicks is not None
        desk.work.clicking.clicks.choose_sign(False)
        desk.work.clicking.clicks.layer.add((1, 100, 100))
        desk.settle()
        assert [part.key for part in desk.parts] == [(1, plane(0))]
        assert "plus" in desk.said[-1]

    def test_after_the_key_for_the_next_object_it_is_a_new_one(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        desk.dock.tools.click.click()
        desk.work.select(1)
        desk.work.clicking.begin_next()
        assert desk.work.clicking.clicks is not None
        desk.work.clicking.clicks.layer.add((1, 100, 100))
        desk.wait(lambda: desk.ids == [1, 2])


class TestShapes:
    def test_a_shape_moved_to_another_slice_takes_its_part_along(self, desk: Desk, image: np.ndarray) -> None:
        desk.add_boxes_at((0,), A)
        desk.paint_on(1, 3, PATCH)
        before = len(desk.painted)
        desk.shapes.data = [corners(B, 3, (1,))]
        desk.wait(lambda: len(desk.painted) > before)
        assert list(desk.work.document[1].parts) == [plane(3), plane(1)]
        assert not desk.mask(1)[0].any()
        assert np.array_equal(desk.mask(1)[1], filled(image.shape, B))
        assert not desk.work.prompts.changes()  # type: ignore[union-attr]

    def test_not_to_one_where_the_object_is_already(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        desk.paint_on(1, 3, PATCH)
        desk.shapes.data = [corners(B, 3, (3,))]
        desk.settle()
        assert list(desk.work.document[1].parts) == [plane(0), plane(3)]
        assert "already" in desk.said[-1]
        assert desk.part_on(1, 0).problem
        assert row(desk)["State"] == "refused"

    def test_a_copy_is_a_new_object_wherever_it_is_taken(self, desk: Desk, image: np.ndarray) -> None:
        desk.add_boxes_at((0,), A)
        desk.shapes.selected_data = {0}
        desk.shapes._copy_data()
        desk.shapes._paste_data()
        desk.wait(lambda: 2 in desk.painted)
        assert [part.key for part in desk.parts] == [(1, plane(0)), (2, plane(0))]
        desk.shapes.data = [desk.shapes.data[0], corners(B, 3, (1,))]
        desk.wait(lambda: desk.mask(2)[1].any())
        assert [part.key for part in desk.parts] == [(1, plane(0)), (2, plane(1))]
        assert np.array_equal(desk.mask(1)[0], filled(image.shape, A))

    def test_a_deleted_shape_takes_the_object_off_its_slice_only(self, desk: Desk) -> None:
        desk.add_boxes_at((0,), A)
        desk.paint_on(1, 3, PATCH)
        desk.delete_box(1)
        assert [part.key for part in desk.parts] == [(1, plane(3))]
        assert not desk.mask(1)[0].any()
        assert desk.mask(1)[3].any()
        desk.undo()
        assert set(desk.work.document[1].parts) == {plane(0), plane(3)}
        assert desk.shapes.nshapes == 1


class TestBoxes:
    """Parts with boxes that another program, or carrying, adds."""

    @pytest.fixture
    def carried(self, desk: Desk) -> Desk:
        desk.add_boxes_at((0,), A)
        work = desk.work
        work.add_parts(Part(1, plane(z), Box(*B), origin="carried", score=0.5) for z in (1, 2))
        desk.wait(lambda: all(part.prediction is not None for part in desk.parts))
        desk.wait(lambda: desk.mask(1)[2].any())
        return desk

    def test_they_are_decoded_drawn_and_shown_in_one_row(self, carried: Desk, image: np.ndarray) -> None:
        for z in (1, 2):
            assert np.array_equal(carried.mask(1)[z], filled(image.shape, B))
        assert carried.shapes.nshapes == 3
        assert [part.origin for part in carried.parts] == ["drawn", "carried", "carried"]
        assert row(carried)["Planes"] == "0, 1, 2"
        assert row(carried)["Prompts"] == "3 boxes"
        carried.work.choose_class(2)
        carried.shapes.mode = "select"
        carried.shapes.selected_data = {1}
        carried.work.choose_class(3)
        assert carried.work.document[1].class_id == 3
        assert len({tuple(color) for color in carried.shapes.edge_color}) == 1  # one class, one colour

    def test_one_is_deleted_and_one_is_moved(self, carried: Desk, image: np.ndarray) -> None:
        carried.shapes.selected_data = {1}
        carried.shapes.remove_selected()
        assert list(carried.work.document[1].parts) == [plane(0), plane(2)]
        data = list(carried.shapes.data)
        before = len(carried.painted)
        data[1] = corners(A, 3, (2,))
        carried.shapes.data = data
        carried.wait(lambda: len(carried.painted) > before)
        assert np.array_equal(carried.mask(1)[2], filled(image.shape, A))

    def test_they_come_back_and_another_image_is_exported_slice_by_slice(
        self, carried: Desk, image: np.ndarray
    ) -> None:
        from napari_medsam.curation.case_files import read_case

        carried.settle()
        reopened(carried, np.stack([image] * 4), name="stack")
        looked(carried)
        restored(carried)
        assert [(part.key, part.origin, part.score) for part in carried.parts] == [
            ((1, plane(0)), "drawn", None),
            ((1, plane(1)), "carried", 0.5),
            ((1, plane(2)), "carried", 0.5),
        ]
        assert carried.shapes.nshapes == 3
        done = carried.dock.desk.export(carried.folder / "dataset")
        assert done is not None
        carried.wait(done.done)
        cases = [read_case(path) for path in done.result()]
        assert [case.source.index for case in cases] == [(z, None, None) for z in range(3)]
        assert [[found.source_label for found in case.objects] for case in cases] == [[1]] * 3
        assert [case.objects[0].box for case in cases] == [A, B, B]
        carried.settle()


def test_one_id_has_one_colour_through_a_stack(desk: Desk) -> None:
    desk.add_boxes_at((0,), A)
    desk.paint_on(1, 2, PATCH)
    first, third = desk.labels.data[0, 60, 100], desk.labels.data[2, 140, 70]
    assert first == third == 1
    assert np.array_equal(desk.labels.get_color(int(first)), desk.labels.get_color(int(third)))
