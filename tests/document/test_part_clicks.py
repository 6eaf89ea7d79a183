"""Clicks of an object on two planes: each part has its own, and its own masks before them."""

from __future__ import annotations

import numpy as np

from napari_medsam.document.click_edits import ClickEdit, as_it_stands, set_points
from napari_medsam.document.objects import Document, Part, PlaneKey
from napari_medsam.geometry import Box
from napari_medsam.image.field import whole_field
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point

SHAPE = (20, 20)
KEY, OTHER = (PlaneKey((z, None, None), (1, 2)) for z in (0, 1))
BOX = Box(2, 2, 8, 8)
PLUS, MINUS = Point(4, 4), Point(5, 5, positive=False)


def predicted(document: Document, plane: PlaneKey) -> Part:
    found = Prediction(BOX, 2, 2, np.ones((6, 6), bool), 0.9, "key", whole_field(SHAPE))
    return document.predicted(1, plane, found)


def on_two_planes() -> Document:
    document = Document()
    document.add(KEY, BOX, 1)
    document.add_part(Part(1, OTHER, BOX))
    for plane in (KEY, OTHER):
        predicted(document, plane)
    return document


def standing(document: Document, plane: PlaneKey) -> MaskBefore:
    return as_it_stands(document.part(1, plane), None)


def test_a_click_on_one_plane_leaves_the_other_alone() -> None:
    document = on_two_planes()
    other = document.part(1, OTHER)
    assert set_points(document, 1, KEY, (PLUS,), standing(document, KEY)) == ClickEdit(ask=True)
    assert document.part(1, KEY).points == (PLUS,)
    assert document.part(1, OTHER) is other


def test_a_click_taken_back_restores_the_mask_of_its_own_plane() -> None:
    document = on_two_planes()
    first = document.part(1, KEY).prediction
    for plane in (KEY, OTHER):
        set_points(document, 1, plane, (MINUS,), standing(document, plane))
    edit = set_points(document, 1, KEY, (), standing(document, KEY))
    assert edit.restore is not None
    assert edit.restore.prediction is first
    assert document.part(1, OTHER).points == (MINUS,)


def test_the_last_click_of_a_part_without_a_box_takes_that_part_only() -> None:
    document = Document()
    document.add(KEY, BOX, 1)
    document.add_part(Part(1, OTHER))
    set_points(document, 1, OTHER, (PLUS,), MaskBefore())
    assert set_points(document, 1, OTHER, (), MaskBefore()) == ClickEdit(gone=True)
    assert list(document[1].parts) == [KEY, OTHER]  # it is for the caller to take it off


def test_paint_on_one_plane_is_what_clicks_there_build_on() -> None:
    document = on_two_planes()
    labels = np.zeros((2, *SHAPE), int)
    labels[:, 2:8, 2:8] = 1
    labels[1, 8:10, 2:8] = 1

    def read(plane: PlaneKey, bounds: Box) -> np.ndarray:
        r0, c0, r1, c1 = bounds
        return labels[plane.index[0] or 0, r0:r1, c0:c1]

    for plane in (KEY, OTHER):
        document.update_part(1, plane, extent=Box(2, 2, 10, 8))
    first, second = (
        as_it_stands(document.part(1, plane), lambda bounds, plane=plane: read(plane, bounds))  # type: ignore[misc]
        for plane in (KEY, OTHER)
    )
    assert first.painted is None
    assert second.painted is not None
    assert second.painted.mask.sum() == 48
