"""Boxes: their sides and pixels, what two of them share, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medsam.geometry import Box, Patch, bbox_of, union

EDGES = st.integers(0, 12)
BOXES = st.tuples(EDGES, EDGES, EDGES, EDGES).map(
    lambda e: Box(min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]) + 1, max(e[1], e[3]) + 1)
)


def filled(box: Box) -> np.ndarray:
    canvas = np.zeros((14, 14), bool)
    canvas[box.slices] = True
    return canvas


def test_sides_and_middle() -> None:
    box = Box(1, 2.5, 4, 9)
    assert (box.height, box.width, box.longest, box.area) == (3, 6.5, 6.5, 19.5)
    assert box.centre == (2.5, 5.75)
    assert box.outward() == (1, 2, 4, 9)
    assert Box(3, 3, 2, 8).area == 0
    assert Box(3, 3, 2, 8).shape == (0, 5)
    assert Box(3, 3, 2, 8).empty


@given(BOXES, BOXES)
def test_two_boxes_are_as_their_pixels_are(a: Box, b: Box) -> None:
    common = filled(a) & filled(b)
    assert a.meets(b) == common.any() == (not a.intersect(b).empty)
    assert a.contains(b) == (filled(b) <= filled(a)).all()
    assert union(a, b) == bbox_of(filled(a) | filled(b)) == union(b, a)
    if common.any():
        assert a.intersect(b) == bbox_of(common)


@given(BOXES, st.integers(-3, 3), st.integers(-3, 3))
def test_moved_and_grown(box: Box, rows: int, cols: int) -> None:
    assert box.moved(rows, cols).shape == box.shape
    assert box.moved(rows, cols).corner == (box.corner[0] + rows, box.corner[1] + cols)
    assert box.grown(1) == (box.r0 - 1, box.c0 - 1, box.r1 + 1, box.c1 + 1)
    assert box.grown(1, 2, 3, 4) == (box.r0 - 1, box.c0 - 2, box.r1 + 3, box.c1 + 4)


@given(BOXES, BOXES)
def test_a_patch_is_cut_and_padded_to_a_box(own: Box, wanted: Box) -> None:
    patch = Patch(*own.corner, np.ones(own.shape, bool))
    assert patch.box == own
    np.testing.assert_array_equal(patch.within(wanted), filled(own)[wanted.slices])


def test_an_empty_box_gives_no_pixel() -> None:
    assert np.zeros((9, 9))[Box(5, 5, 2, 8).slices].size == 0
    assert union(None, None) is None
    assert bbox_of(np.zeros((4, 4))) is None
    with pytest.raises(ValueError, match="2D"):
        bbox_of(np.zeros((2, 2, 2)))
