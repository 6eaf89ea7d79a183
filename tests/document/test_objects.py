"""The document: ids, classes, and who is told what."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.document.objects import PALETTE, Document, PlaneKey
from napari_medsam.geometry import Box, Patch, intersection, union
from napari_medsam.image.field import whole_field
from napari_medsam.segment.prediction import Prediction

KEY, OTHER = PlaneKey((0, None, None), (1, 2)), PlaneKey((1, None, None), (1, 2))
BOX = Box(0, 0, 4, 4)


def prediction() -> Prediction:
    return Prediction(BOX, 0, 0, np.ones((4, 4), bool), 0.5, "key", whole_field((8, 8)))


class TestObjects:
    def test_ids_are_never_handed_out_twice(self) -> None:
        document = Document()
        assert [document.add(KEY, BOX, 1).id for _ in range(3)] == [1, 2, 3]
        document.remove(3)
        assert document.add(KEY, BOX, 1).id == 4
        document.reserve(10)
        document.reserve(5)
        assert document.add(KEY, BOX, 1).id == 11
        assert document.add(KEY, None, 1, 20).id == 20
        assert document.add(KEY, None, 1).id == 21

    @pytest.mark.parametrize("taken", [1, 0, -3])
    def test_taken_and_impossible_ids_are_refused(self, taken: int) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        with pytest.raises(ValueError, match="taken or not positive"):
            document.add(KEY, BOX, 1, taken)

    def test_a_removed_one_can_be_restored_once(self) -> None:
        document = Document()
        record = document.add(KEY, BOX, 1)
        document.remove(record.id)
        assert record.id not in document
        assert document.get(record.id) is None
        document.restore(record)
        assert document[record.id] is record
        with pytest.raises(ValueError, match="taken"):
            document.restore(record)

    def test_a_new_prediction_forgets_the_correction_and_the_problem_and_comes_last(self) -> None:
        document = Document()
        first, second = (document.add(KEY, BOX, 1).id for _ in range(2))
        document.predicted(first, prediction())
        document.predicted(second, prediction())
        document.update(first, before=Patch(0, 0, np.ones((1, 1), bool)), problem="no")
        assert document[first].corrected
        document.predicted(first, prediction())
        assert not document[first].corrected
        assert document[first].problem is None
        assert document[first].turn > document[second].turn

    def test_planes_and_their_objects(self) -> None:
        document = Document()
        ids = [document.add(key, BOX, 1).id for key in (OTHER, KEY, OTHER)]
        assert document.planes() == [OTHER, KEY]
        assert [record.id for record in document.in_plane(OTHER)] == [ids[0], ids[2]]
        assert len(document) == 3

    def test_everybody_is_told(self) -> None:
        document = Document()
        heard: list[tuple[str, int]] = []
        document.added.connect(lambda number: heard.append(("added", number)))
        document.changed.connect(lambda number: heard.append(("changed", number)))
        document.removed.connect(lambda number: heard.append(("removed", number)))
        record = document.add(KEY, BOX, 1)
        document.update(record.id, class_id=2)
        document.remove(record.id)
        document.restore(record)
        assert heard == [("added", 1), ("changed", 1), ("removed", 1), ("added", 1)]

    def test_it_may_change_while_it_is_walked(self) -> None:
        document = Document()
        for _ in range(3):
            document.add(KEY, BOX, 1)
        for record in document:
            document.remove(record.id)
        assert len(document) == 0


class TestClasses:
    def test_unknown_ones_have_a_plain_name_and_a_colour(self) -> None:
        document = Document()
        found = document.class_of(3)
        assert (found.name, found.color) == ("class 3", PALETTE[2])
        assert document.class_of(len(PALETTE) + 1).color == PALETTE[0]
        assert [known.id for known in document.classes] == [1]

    def test_renaming_tells_once(self) -> None:
        document = Document()
        heard: list[int] = []
        document.classes_changed.connect(lambda: heard.append(1))
        document.set_class(2, " gland ")
        document.set_class(2, "gland")
        document.set_class(2, "")
        document.set_class(2, color="#000000")
        assert document.class_of(2).name == "gland"
        assert document.class_of(2).color == "#000000"
        assert len(heard) == 2


def test_bounds() -> None:
    a, b = (0, 0, 4, 4), (2, 3, 9, 5)
    assert union(a, b) == (0, 0, 9, 5)
    assert union(None, b) == union(b, None) == b
    assert union(None, None) is None
    assert intersection(a, b) == (2, 3, 4, 4)
