"""A journal that version 0.1 left is read as it was meant: `tests/fixtures/v1` says what it holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_medsam.document.objects import ObjectClass, Part, PlaneKey
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field
from napari_medsam.image.identity import ImageIdentity, identify
from napari_medsam.journal.format import Outline
from napari_medsam.journal.recovery import Recovered, UnsavedJournal, find_unsaved
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point

FROZEN = Path(__file__).parents[1] / "fixtures" / "v1"
SHAPE = (2, 3, 40, 50)
KEY = "a" * 64
CENTRED = Field(0, 0, 32, 32, "centred")


def image() -> ImageIdentity:
    pixels = (np.arange(np.prod(SHAPE)) * 37 % 251).astype(np.uint8).reshape(SHAPE)
    return identify([pixels], name="stack", path="/elsewhere/stack.tif")


def plane(z: int) -> PlaneKey:
    return PlaneKey((None, z, None, None), (2, 3))


STRAY = (1, plane(1))
"""Paint with the label of an object on a plane that was not its own: now a part of it."""


def left(name: str, folder: Path) -> UnsavedJournal:
    """The one journal found for the image, from a copy: whoever finds a journal locks it."""
    shutil.copytree(FROZEN / name, folder, dirs_exist_ok=True)
    [journal] = find_unsaved(folder, image())
    return journal


@pytest.fixture
def found(tmp_path: Path) -> Recovered:
    return left("journal", tmp_path).read()


def drawn(found: Recovered) -> list[Part]:
    """The part of each object on the plane that the journal gives it, in the order of the ids."""
    parts = [part for record in found.objects for part in record.parts.values()]
    return [part for part in parts if part.key != STRAY]


def one(found: Recovered, number: int) -> Part:
    [part] = [part for part in drawn(found) if part.object_id == number]
    return part


def rectangle_less_a_corner(mask: np.ndarray, height: int, width: int) -> bool:
    wanted = np.ones((height, width), bool)
    wanted[0, 0] = False
    return np.array_equal(mask, wanted)


def test_it_is_found_by_the_pixels_of_its_image(tmp_path: Path) -> None:
    journal = left("journal", tmp_path)
    assert (journal.objects, journal.unsaved, journal.broken) == (7, 6, 0)
    about = journal.header.image
    assert (about.key, about.shape, about.dtype) == ("0343f087b36959837fe22d4fba7c9ffe", SHAPE, "|u1")
    assert (about.path, about.name, journal.header.channel_axis) == ("/data/plate 7/stack.tif", "stack", 0)


def test_objects_classes_and_what_waits(found: Recovered) -> None:
    assert found.classes == (ObjectClass(1, "cell", "#e6194b"), ObjectClass(2, "nucleus", "#123456"))
    assert [record.id for record in found.objects] == [1, 2, 3, 4, 5, 7, 8]
    assert [record.class_id for record in found.objects] == [1, 2, 1, 1, 2, 2, 1]
    assert [part.plane for part in drawn(found)] == [plane(z) for z in (0, 0, 2, 1, 1, 2, 2)]
    assert [part.object_id for part in drawn(found) if part.corrected] == [2, 5]
    assert {number for number, _ in found.unsaved} == {1, 2, 3, 4, 5, 8}
    assert found.unsaved == {STRAY, *(part.key for part in drawn(found) if part.object_id != 7)}
    assert (found.waiting, found.broken) == ({(4, plane(1))}, 0)
    assert found.outlines == {(1, plane(0)): Outline("polygon", ((4.5, 5.0), (24.25, 7.0), (10.0, 29.5)))}


def test_prompts(found: Recovered) -> None:
    assert {part.object_id: part.box for part in drawn(found)} == {
        1: Box(5.0, 5.0, 16.5, 20.0),
        2: Box(20.0, 10.0, 30.0, 30.0),
        3: Box(8.0, 2.0, 20.0, 12.0),
        4: Box(1.5, 2.25, 30.0, 40.125),
        5: None,
        7: Box(22.0, 20.0, 28.0, 30.0),
        8: None,
    }
    assert {part.object_id: part.points for part in drawn(found) if part.points} == {
        3: (Point(9.25, 5.0, True), Point(12.0, 7.5, False)),
        8: (Point(33.0, 5.0, True),),
    }
    assert {part.object_id: part.problem for part in drawn(found) if part.problem} == {
        4: "The model went away."
    }


def check_prediction(
    prediction: Prediction | None, at: tuple[int, int, int, int], iou: float, field: Field
) -> None:
    assert prediction is not None
    assert (prediction.row, prediction.col, prediction.iou, prediction.key) == (*at[:2], iou, KEY)
    assert rectangle_less_a_corner(prediction.mask, *at[2:])
    assert prediction.field == field


def test_predicted_masks(found: Recovered) -> None:
    check_prediction(one(found, 1).prediction, (5, 5, 10, 15), 0.75, CENTRED)
    check_prediction(one(found, 2).prediction, (20, 10, 10, 20), 0.5, Field(0, 0, 40, 50, "whole"))
    check_prediction(one(found, 3).prediction, (8, 2, 12, 10), 0.75, CENTRED)
    check_prediction(one(found, 7).prediction, (22, 20, 6, 10), 0.75, CENTRED)
    check_prediction(one(found, 8).prediction, (30, 2, 6, 7), 0.625, Field(16, 0, 16, 16, "grid"))
    boxes = {part.object_id: part.prediction.box for part in drawn(found) if part.prediction is not None}
    assert boxes[1] == Box(5.0, 5.0, 15.0, 20.0)  # the box it was predicted from, not the one since
    assert boxes[8] is None
    assert one(found, 4).prediction is None
    assert one(found, 5).prediction is None


def test_order_and_extent(found: Recovered) -> None:
    assert [part.turn for part in drawn(found)] == [1, 2, 3, 0, 0, 5, 6]
    assert {part.object_id: part.extent for part in drawn(found)} == {
        1: (5, 5, 15, 20),
        2: (18, 10, 30, 36),
        3: (8, 2, 20, 12),
        4: None,
        5: (4, 4, 9, 9),
        7: (22, 20, 28, 30),
        8: (30, 2, 36, 9),
    }


def test_the_masks_before_a_correction(found: Recovered) -> None:
    before = one(found, 2).before
    assert before is not None
    assert (before.row, before.col) == (20, 10)
    assert rectangle_less_a_corner(before.mask, 10, 20)
    painted = one(found, 5).before
    assert painted is not None
    assert (painted.row, painted.col, painted.mask.shape) == (4, 4, (0, 0))


def test_the_masks_before_each_click(found: Recovered) -> None:
    first, second = one(found, 3).masks_before
    check_prediction(first.prediction, (8, 2, 10, 10), 0.25, CENTRED)
    assert first.painted is None
    assert second.prediction is not None
    assert (second.prediction.iou, second.prediction.key) == (0.375, "")
    assert rectangle_less_a_corner(second.prediction.mask, 11, 10)
    assert second.painted is not None
    assert (second.painted.row, second.painted.col) == (10, 4)
    assert np.array_equal(second.painted.mask, np.eye(6, dtype=bool))
    [before] = one(found, 8).masks_before
    assert (before.prediction, before.painted) == (None, None)


def test_the_pixels_of_each_label(found: Recovered) -> None:
    labels = np.zeros(SHAPE[1:], int)
    for pixels in found.pixels:
        r0, c0, r1, c1 = pixels.patch.box
        labels[pixels.plane.index[1], r0:r1, c0:c1][pixels.patch.mask] = pixels.label
    areas = {
        z: {int(label): int((labels[z] == label).sum()) for label in np.unique(labels[z]) if label}
        for z in range(3)
    }
    assert areas == {0: {1: 149, 2: 199 + 24}, 1: {1: 40, 5: 15}, 2: {3: 119, 7: 59, 8: 41}}
    assert (labels[0, 18:22, 30:36] == 2).all()  # what the brush added
    assert (labels[1, 30:34, 6:16] == 1).all()  # an object's label on a plane that is not its own


def test_paint_on_another_plane_is_a_part_of_the_object(found: Recovered) -> None:
    [part] = [part for record in found.objects for part in record.parts.values() if part.key == STRAY]
    assert (part.extent, part.box, part.prediction, part.origin) == ((30, 6, 34, 16), None, None, "drawn")
    assert part.corrected


def test_one_whose_last_line_is_torn_loses_that_line_only(tmp_path: Path) -> None:
    journal = left("journal_torn", tmp_path)
    assert (journal.objects, journal.unsaved, journal.broken) == (7, 6, 1)
    found = journal.read()
    assert found.broken == 1
    assert one(found, 1).box == Box(5.0, 5.0, 16.5, 20.0)
    places = {(pixels.plane, pixels.label) for pixels in found.pixels if pixels.patch.mask.any()}
    shown = {(plane(0), 1), (plane(0), 2), (plane(1), 5), (plane(2), 3), (plane(2), 7), (plane(2), 8)}
    assert places == shown
