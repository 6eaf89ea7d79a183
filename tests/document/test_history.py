"""Undo and redo, replayed on a plain array: the document must say what the pixels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medsam.document.compose import note_stroke, redraw
from napari_medsam.document.history import Found, History
from napari_medsam.document.objects import Document, DocumentEdit, ObjectRecord, Part, PlaneKey
from napari_medsam.geometry import Box, Patch, union
from napari_medsam.image.field import whole_field
from napari_medsam.segment.prediction import Prediction

SHAPE = (20, 20)
WHOLE = Box(0, 0, *SHAPE)
KEY, OTHER = (PlaneKey((z, None, None), (1, 2)) for z in (0, 1))
Square = tuple[int, int, int, int]


class Canvas:
    """Labels on two planes with undo and redo, and a document kept beside them the way the window does it."""

    def __init__(self) -> None:
        self.labels = np.zeros((2, *SHAPE), np.int64)
        self.document = Document()
        self.history = History(self.document)
        self.past: list[np.ndarray] = []
        self.future: list[np.ndarray] = []

    def read(self, plane: PlaneKey, bounds: Box) -> np.ndarray:
        r0, c0, r1, c1 = bounds
        return self.labels[plane.index[0], r0:r1, c0:c1].copy()

    def edit(self, labels: np.ndarray) -> None:
        self.past.append(self.labels)
        self.future.clear()
        self.labels = labels

    def undo(self) -> Found:
        self.future.append(self.labels)
        self.labels = self.past.pop()
        return self.history.look(self.read)

    def redo(self) -> Found:
        self.past.append(self.labels)
        self.labels = self.future.pop()
        return self.history.look(self.read)

    def draw(self, square: Square, number: int | None = None, plane: PlaneKey = KEY) -> int:
        """Predict a filled square for a new object or an old one, on a plane where it may not have been."""
        r0, c0, r1, c1 = square
        if number is None:
            number = self.document.add(plane, Box(*square), 1).id
        elif self.document.get_part(number, plane) is None:
            self.document.add_part(Part(number, plane, Box(*square)))
        mask = np.ones((r1 - r0, c1 - c0), bool)
        found = Prediction(Box(*square), r0, c0, mask, 0.9, "key", whole_field(SHAPE))
        part = self.document.predicted(number, plane, found)
        self.history.drawn(part)
        self.redraw(part)
        self.document.update_part(number, plane, extent=Box(*square))
        return number

    def redraw(self, part: Part, *, erase: bool = False) -> None:
        labels, others = self.labels.copy(), self.document.in_plane(part.plane)
        z = part.plane.index[0]
        labels[z] = redraw(labels[z], WHOLE, part, others, "corrected", erase=erase)
        self.edit(labels)

    def paint(self, label: int, square: Square, *planes: PlaneKey) -> None:
        """Paint through some planes, the first when none is named, as one step."""
        r0, c0, r1, c1 = square
        now, earlier = self.labels.copy(), self.labels
        for plane in planes or (KEY,):
            now[plane.index[0], r0:r1, c0:c1] = label
        self.edit(now)
        self.history.edited()
        for part in self.document.parts():
            z = part.plane.index[0]
            before = part.before or note_stroke(part, now[z], earlier[z], WHOLE)
            extent = union(part.extent, Box(*square)) if (before and part.object_id == label) else part.extent
            self.document.update_part(*part.key, before=before, extent=extent)
        for plane in planes or (KEY,):
            if label and self.document.get_part(label, plane) is None:
                part = Part(label, plane, before=Patch(r0, c0, np.zeros((0, 0), bool)), extent=Box(*square))
                if label in self.document:
                    self.document.add_part(part)
                else:
                    self.document.restore(ObjectRecord(label, 1, {plane: part}))

    def delete(self, number: int, plane: PlaneKey = KEY) -> None:
        part = self.document.part(number, plane)
        self.redraw(part, erase=True)
        self.history.deleted(part)
        self.document.remove_part(number, plane)

    @property
    def ids(self) -> list[int]:
        return sorted(record.id for record in self.document)


@pytest.fixture
def canvas() -> Canvas:
    return Canvas()


A, B, C = (2, 2, 8, 8), (10, 10, 16, 16), (0, 12, 4, 18)


def test_nothing_happened(canvas: Canvas) -> None:
    canvas.draw(A)
    assert canvas.history.look(canvas.read) == Found()


def test_a_correction_is_taken_back_and_made_again_as_often_as_one_likes(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.paint(number, (2, 8, 8, 10))
    for _ in range(3):
        canvas.undo()
        assert not canvas.document[number].corrected
        canvas.redo()
        assert canvas.document[number].corrected


def test_an_edit_after_undo_forgets_what_could_have_been_redone(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.paint(number, (2, 8, 8, 10))
    canvas.undo()
    canvas.draw((2, 2, 8, 4))  # takes pixels of the first object, which is no correction of it
    assert canvas.history.look(canvas.read) == Found()
    assert not canvas.document[number].corrected


def test_a_deletion_is_taken_back_and_made_again(canvas: Canvas) -> None:
    first, second = canvas.draw(A), canvas.draw(B)
    part = canvas.document.part(second, KEY)
    canvas.delete(second)
    assert canvas.undo() == Found(revived=(part,))
    assert canvas.ids == [first, second]
    assert canvas.redo() == Found(vanished=((second, KEY),))
    assert canvas.ids == [first]
    assert canvas.undo().revived[0].box == part.box


def test_a_revived_object_follows_its_pixels_until_it_is_drawn_anew(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.delete(number)
    canvas.undo()
    assert canvas.undo() == Found(vanished=((number, KEY),))
    canvas.redo()
    assert canvas.ids == [number]
    canvas.draw(B, number)
    canvas.undo()
    assert canvas.ids == [number]


def test_a_corrected_object_comes_back_corrected(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.paint(number, (2, 8, 8, 10))
    canvas.delete(number)
    canvas.undo()
    assert canvas.document[number].corrected
    canvas.undo()
    assert not canvas.document[number].corrected


def test_hand_paint_goes_and_comes(canvas: Canvas) -> None:
    canvas.paint(9, C)
    assert canvas.undo() == Found(vanished=((9, KEY),))
    assert [part.object_id for part in canvas.redo().revived] == [9]
    assert canvas.document[9].corrected


def test_a_label_that_was_deleted_and_painted_again(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.delete(number)
    canvas.paint(number, (3, 3, 5, 5))
    assert canvas.document.part(number, KEY).box is None
    canvas.undo()
    assert canvas.ids == []
    canvas.undo()
    assert canvas.document.part(number, KEY).box == Box(*A)
    canvas.redo()
    assert canvas.ids == []
    canvas.redo()
    assert canvas.document.part(number, KEY).box is None


def test_an_undone_move_widens_the_extent_to_where_the_pixels_are(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.draw(B, number)
    assert canvas.document.part(number, KEY).extent == B
    canvas.undo()
    extent = canvas.document.part(number, KEY).extent
    assert extent is not None
    assert extent.contains(Box(*A))


def test_new_labels_have_no_history(canvas: Canvas) -> None:
    number = canvas.draw(A)
    record = canvas.document[number]
    canvas.delete(number)
    canvas.history.clear()
    canvas.labels[0, 2:8, 2:8] = number
    assert canvas.history.look(canvas.read) == Found()
    assert record.id not in canvas.document


def test_an_object_without_pixels_cannot_come_back(canvas: Canvas) -> None:
    record = canvas.document.add(KEY, Box(*A), 1)
    canvas.history.deleted(replace(record.parts[KEY], extent=None))
    canvas.document.remove(record.id)
    assert canvas.history.look(canvas.read) == Found()


class TestPlanes:
    """One object on two planes: what is undone on one leaves the other alone."""

    def test_paint_through_two_planes_goes_and_comes_as_one(self, canvas: Canvas) -> None:
        canvas.paint(9, C, KEY, OTHER)
        assert list(canvas.document[9].parts) == [KEY, OTHER]
        assert canvas.undo() == Found(vanished=((9, KEY), (9, OTHER)))
        assert canvas.ids == []
        assert [part.key for part in canvas.redo().revived] == [(9, KEY), (9, OTHER)]
        assert list(canvas.document[9].parts) == [KEY, OTHER]

    def test_undone_paint_on_another_plane_takes_that_part_only(self, canvas: Canvas) -> None:
        number = canvas.draw(A)
        canvas.paint(number, B, OTHER)
        assert canvas.document.part(number, OTHER).corrected
        assert canvas.undo() == Found(vanished=((number, OTHER),))
        assert list(canvas.document[number].parts) == [KEY]
        assert not canvas.document[number].corrected
        [revived] = canvas.redo().revived
        assert (revived.plane, revived.box) == (OTHER, None)

    def test_a_part_that_was_deleted_comes_back_to_its_object(self, canvas: Canvas) -> None:
        number = canvas.draw(A)
        canvas.document.classify(number, 3)
        canvas.draw(B, number, OTHER)
        canvas.delete(number, OTHER)
        canvas.delete(number, KEY)
        assert canvas.ids == []
        canvas.undo()
        assert list(canvas.document[number].parts) == [KEY]
        assert canvas.document[number].class_id == 3
        canvas.undo()
        assert list(canvas.document[number].parts) == [KEY, OTHER]
        assert canvas.document.part(number, OTHER).box == Box(*B)

    def test_a_correction_on_one_plane_is_undone_there(self, canvas: Canvas) -> None:
        number = canvas.draw(A)
        canvas.draw(A, number, OTHER)
        canvas.paint(number, (2, 8, 8, 10), OTHER)
        assert [part.corrected for part in canvas.document.parts()] == [False, True]
        canvas.undo()
        assert [part.corrected for part in canvas.document.parts()] == [False, False]
        canvas.redo()
        assert [part.corrected for part in canvas.document.parts()] == [False, True]

    def test_a_look_is_told_once(self, canvas: Canvas) -> None:
        canvas.paint(9, C, KEY, OTHER)
        heard: list[DocumentEdit] = []
        canvas.document.edited.connect(heard.append)
        canvas.undo()
        assert heard == [DocumentEdit(removed=(9,), parts=((9, KEY), (9, OTHER)))]
