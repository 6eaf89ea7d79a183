"""The document: ids, classes, and who is told what."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.document.objects import PALETTE, Document, DocumentEdit, ObjectRecord, Part, PlaneKey
from napari_medsam.geometry import Box, Patch, union
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
        document.predicted(first, KEY, prediction())
        document.predicted(second, KEY, prediction())
        document.update_part(first, KEY, before=Patch(0, 0, np.ones((1, 1), bool)), problem="no")
        assert document[first].corrected
        document.predicted(first, KEY, prediction())
        assert not document[first].corrected
        assert document.part(first, KEY).problem is None
        assert document.part(first, KEY).turn > document.part(second, KEY).turn

    def test_planes_and_their_objects(self) -> None:
        document = Document()
        ids = [document.add(key, BOX, 1).id for key in (OTHER, KEY, OTHER)]
        assert document.planes() == [OTHER, KEY]
        assert [part.object_id for part in document.in_plane(OTHER)] == [ids[0], ids[2]]
        assert len(document) == 3

    def test_everybody_is_told(self) -> None:
        document = Document()
        heard = listen(document)
        record = document.add(KEY, BOX, 1)
        document.classify(record.id, 2)
        document.update_part(record.id, KEY, problem="no")
        document.remove(record.id)
        document.restore(record)
        assert heard == [
            DocumentEdit(added=(1,), parts=((1, KEY),)),
            DocumentEdit(classified=(1,)),
            DocumentEdit(parts=((1, KEY),)),
            DocumentEdit(removed=(1,), parts=((1, KEY),)),
            DocumentEdit(added=(1,), parts=((1, KEY),)),
        ]

    def test_it_may_change_while_it_is_walked(self) -> None:
        document = Document()
        for _ in range(3):
            document.add(KEY, BOX, 1)
        for record in document:
            document.remove(record.id)
        assert len(document) == 0


class TestParts:
    """An object on several planes."""

    def test_an_object_appears_on_one_more_plane(self) -> None:
        document = Document()
        document.add(KEY, BOX, 2)
        document.add_part(Part(1, OTHER, Box(1, 1, 5, 5), origin="carried", score=0.75))
        assert len(document) == 1
        assert document.planes() == [KEY, OTHER]
        assert [part.object_id for part in document.in_plane(OTHER)] == [1]
        assert [part.key for part in document.parts()] == [(1, KEY), (1, OTHER)]
        carried = document.part(1, OTHER)
        assert (carried.box, carried.origin, carried.score) == (Box(1, 1, 5, 5), "carried", 0.75)
        assert (document.part(1, KEY).origin, document.part(1, KEY).score) == ("drawn", None)

    def test_it_has_one_part_a_plane(self) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        with pytest.raises(ValueError, match="object 1 has a part"):
            document.add_part(Part(1, KEY))
        with pytest.raises(KeyError):
            document.add_part(Part(2, KEY))
        assert document.part(1, KEY).box == BOX

    def test_a_change_of_one_part_leaves_the_others_alone(self) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        other = document.add_part(Part(1, OTHER, BOX))
        document.predicted(1, KEY, prediction())
        document.update_part(1, KEY, before=Patch(0, 0, np.ones((1, 1), bool)))
        assert document.part(1, OTHER) is other
        assert document[1].corrected
        assert not other.corrected
        document.outdate(1, KEY)
        assert document.part(1, KEY).prediction.key == ""
        with pytest.raises(KeyError):
            document.update_part(1, PlaneKey((2, None, None), (1, 2)), problem="no")

    def test_the_object_goes_with_its_last_part(self) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        document.add_part(Part(1, OTHER))
        heard = listen(document)
        document.remove_part(1, KEY)
        assert document.planes() == [OTHER]
        assert document.get_part(1, KEY) is None
        document.remove_part(1, OTHER)
        assert len(document) == 0
        assert document.get_part(1, OTHER) is None
        assert heard == [
            DocumentEdit(parts=((1, KEY),)),
            DocumentEdit(removed=(1,), parts=((1, OTHER),)),
        ]

    def test_a_part_moves_with_all_it_has(self) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        document.update_part(1, KEY, problem="no", score=0.5)
        heard = listen(document)
        moved = document.move_part(1, KEY, OTHER)
        assert document.part(1, OTHER) is moved
        assert (moved.problem, moved.score, moved.plane) == ("no", 0.5, OTHER)
        assert document.planes() == [OTHER]
        assert heard == [DocumentEdit(parts=((1, OTHER), (1, KEY)))]
        document.add_part(Part(1, KEY))
        with pytest.raises(ValueError, match="has a part"):
            document.move_part(1, KEY, OTHER)
        assert document.planes() == [OTHER, KEY]

    def test_a_whole_object_goes_and_comes(self) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        document.add_part(Part(1, OTHER, turn=7))
        record = document.remove(1)
        assert document.planes() == []
        again = Document()
        assert again.restore(record) is record
        assert again.planes() == [KEY, OTHER]
        assert again.predicted(1, KEY, prediction()).turn == 8  # later than all that came with it
        with pytest.raises(ValueError, match="taken or not positive"):
            again.restore(ObjectRecord(0, 1, {KEY: Part(0, KEY)}))


class TestBatch:
    def test_many_changes_are_told_once(self) -> None:
        document = Document()
        document.add(KEY, BOX, 1)
        heard = listen(document)
        with document.batch():
            for number in range(2, 1002):
                document.add(OTHER, BOX, 1, origin="found", score=0.5)
                document.predicted(number, OTHER, prediction())
            document.remove(1)
            assert heard == []
        [edit] = heard
        assert edit.added == tuple(range(2, 1002))
        assert edit.removed == (1,)
        assert edit.parts == (*((number, OTHER) for number in range(2, 1002)), (1, KEY))

    def test_batches_nest_and_an_error_leaves_nothing_untold(self) -> None:
        document = Document()
        heard = listen(document)
        with pytest.raises(RuntimeError), document.batch():  # noqa: PT012
            with document.batch():
                document.add(KEY, BOX, 1)
            assert heard == []
            document.classify(1, 2)
            raise RuntimeError
        assert heard == [DocumentEdit(added=(1,), classified=(1,), parts=((1, KEY),))]
        document.classify(1, 3)
        assert len(heard) == 2

    def test_nothing_done_is_nothing_told(self) -> None:
        document = Document()
        heard = listen(document)
        with document.batch():
            pass
        assert heard == []


def listen(document: Document) -> list[DocumentEdit]:
    """What a document tells from now on."""
    heard: list[DocumentEdit] = []
    document.edited.connect(heard.append)
    return heard


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
    a, b = Box(0, 0, 4, 4), Box(2, 3, 9, 5)
    assert union(a, b) == (0, 0, 9, 5)
    assert union(None, b) == union(b, None) == b
    assert union(None, None) is None
    assert a.intersect(b) == (2, 3, 4, 4)
