"""Undo and redo, replayed on a plain array: the document must say what the pixels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medsam.document.compose import note_stroke, redraw
from napari_medsam.document.history import Found, History
from napari_medsam.document.objects import Document, PlaneKey
from napari_medsam.geometry import Bounds, Box, Patch, union
from napari_medsam.image.field import whole_field
from napari_medsam.segment.prediction import Prediction

SHAPE = (20, 20)
WHOLE: Bounds = (0, 0, *SHAPE)
KEY = PlaneKey((None, None), (0, 1))
Square = tuple[int, int, int, int]


class Canvas:
    """Labels with undo and redo, and a document kept beside them the way the window does it."""

    def __init__(self) -> None:
        self.labels = np.zeros(SHAPE, np.int64)
        self.document = Document()
        self.history = History(self.document)
        self.past: list[np.ndarray] = []
        self.future: list[np.ndarray] = []

    def read(self, plane: PlaneKey, bounds: Bounds) -> np.ndarray:
        assert plane == KEY
        r0, c0, r1, c1 = bounds
        return self.labels[r0:r1, c0:c1].copy()

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

    def draw(self, square: Square, number: int | None = None) -> int:
        """Predict a filled square for a new object or an old one."""
        r0, c0, r1, c1 = square
        if number is None:
            number = self.document.add(KEY, Box(*square), 1).id
        mask = np.ones((r1 - r0, c1 - c0), bool)
        found = Prediction(Box(*square), r0, c0, mask, 0.9, "key", whole_field(SHAPE))
        record = self.document.predicted(number, found)
        self.history.drawn(record)
        self.edit(redraw(self.labels, WHOLE, record, self.document, "corrected"))
        self.document.update(number, extent=square)
        return number

    def paint(self, label: int, square: Square) -> None:
        r0, c0, r1, c1 = square
        now = self.labels.copy()
        now[r0:r1, c0:c1] = label
        earlier = self.labels
        self.edit(now)
        self.history.edited()
        for record in self.document:
            before = record.before or note_stroke(record, now, earlier, WHOLE)
            extent = union(record.extent, square) if (before and record.id == label) else record.extent
            self.document.update(record.id, before=before, extent=extent)
        if label and label not in self.document:
            self.document.add(KEY, None, 1, label)
            self.document.update(label, before=Patch(r0, c0, np.zeros((0, 0), bool)), extent=square)

    def delete(self, number: int) -> None:
        record = self.document[number]
        self.edit(redraw(self.labels, WHOLE, record, self.document, "corrected", erase=True))
        self.history.deleted(record)
        self.document.remove(number)

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
    record = canvas.document[second]
    canvas.delete(second)
    assert canvas.undo() == Found(revived=(record,))
    assert canvas.ids == [first, second]
    assert canvas.redo() == Found(vanished=(second,))
    assert canvas.ids == [first]
    assert canvas.undo().revived[0].box == record.box


def test_a_revived_object_follows_its_pixels_until_it_is_drawn_anew(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.delete(number)
    canvas.undo()
    assert canvas.undo() == Found(vanished=(number,))
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
    assert canvas.undo() == Found(vanished=(9,))
    assert [record.id for record in canvas.redo().revived] == [9]
    assert canvas.document[9].corrected


def test_a_label_that_was_deleted_and_painted_again(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.delete(number)
    canvas.paint(number, (3, 3, 5, 5))
    assert canvas.document[number].box is None
    canvas.undo()
    assert canvas.ids == []
    canvas.undo()
    assert canvas.document[number].box == Box(*A)
    canvas.redo()
    assert canvas.ids == []
    canvas.redo()
    assert canvas.document[number].box is None


def test_an_undone_move_widens_the_extent_to_where_the_pixels_are(canvas: Canvas) -> None:
    number = canvas.draw(A)
    canvas.draw(B, number)
    assert canvas.document[number].extent == B
    canvas.undo()
    extent = canvas.document[number].extent
    assert extent is not None
    assert union(extent, A) == extent


def test_new_labels_have_no_history(canvas: Canvas) -> None:
    number = canvas.draw(A)
    record = canvas.document[number]
    canvas.delete(number)
    canvas.history.clear()
    canvas.labels[2:8, 2:8] = number
    assert canvas.history.look(canvas.read) == Found()
    assert record.id not in canvas.document


def test_an_object_without_pixels_cannot_come_back(canvas: Canvas) -> None:
    record = canvas.document.add(KEY, Box(*A), 1)
    canvas.history.deleted(replace(record, extent=None))
    canvas.document.remove(record.id)
    assert canvas.history.look(canvas.read) == Found()
