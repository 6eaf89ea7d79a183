"""Which field answers which box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medsam import Segmenter
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.fields import FieldPolicy, centred_field, grid_field, grid_fields, grid_side

POLICY = FieldPolicy()
SHAPES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, tuple[int, int]]:
    height, width = draw(SHAPES)
    r0, c0 = draw(st.floats(0, height - 0.5)), draw(st.floats(0, width - 0.5))
    r1, c1 = draw(st.floats(r0 + 0.4, height)), draw(st.floats(c0 + 0.4, width))
    return Box(r0, c0, r1, c1), (height, width)


@given(boxes())
def test_a_field_lies_in_the_plane_and_holds_the_box(drawn: tuple[Box, tuple[int, int]]) -> None:
    box, shape = drawn
    for field in (centred_field(box, shape, POLICY), grid_field(box, shape, POLICY)):
        assert 0 <= field.row <= field.row + field.height <= shape[0]
        assert 0 <= field.col <= field.col + field.width <= shape[1]
        assert field.box.contains(box)


@given(boxes())
def test_the_grid_field_of_a_box_is_one_of_the_fields_embedded_ahead(
    drawn: tuple[Box, tuple[int, int]],
) -> None:
    box, shape = drawn
    field = grid_field(box, shape, POLICY)
    if field.kind == "grid":
        side = max(field.height, field.width)
        assert field in grid_fields(box, side, shape)


def test_a_nudged_box_meets_the_same_field() -> None:
    fields = {centred_field(Box(500 + d, 700, 560 + d, 750), (2000, 2000), POLICY) for d in range(3)}
    assert len(fields) <= 2
    sizes = {centred_field(Box(500, 700, 560 + d, 750), (2000, 2000), POLICY).height for d in range(12)}
    assert len(sizes) == 2


def test_large_boxes_see_the_whole_plane_and_small_ones_do_not() -> None:
    assert centred_field(Box(0, 0, 300, 300), (512, 512), POLICY) == whole_field((512, 512))
    small = centred_field(Box(100, 100, 140, 140), (512, 512), POLICY)
    assert small.kind == "centred"
    assert 80 <= small.height <= 100
    tiny = centred_field(Box(100, 100, 103, 103), (512, 512), POLICY)
    assert tiny.height >= POLICY.smallest


def test_a_box_that_is_not_so_small_gets_more_around_it() -> None:
    below, above = (centred_field(Box(100, 100, 100 + side, 150), (800, 640), POLICY) for side in (79, 81))
    assert 2 <= below.height / 79 <= 2.4
    assert 3 <= above.height / 81 <= 3.6


def test_a_narrow_plane_cuts_the_field() -> None:
    field = centred_field(Box(2, 1000, 30, 1100), (40, 4000), POLICY)
    assert (field.height, field.kind) == (40, "centred")
    assert 200 <= field.width <= 240


def test_grid_fields_cover_the_view_nearest_first() -> None:
    side = grid_side(Box(0, 0, 600, 800), POLICY)
    assert side == 512
    fields = grid_fields(Box(0, 0, 600, 800), side, (5000, 5000))
    covered = np.zeros((600, 800), bool)
    for field in fields:
        covered[field.row : field.row + field.height, field.col : field.col + field.width] = True
    assert covered.all()
    assert fields[0].box.contains(Box(200, 300, 400, 500))
    assert len(set(fields)) == len(fields)
    assert grid_fields(Box(0, 0, 10, 10), 512, (300, 400)) == [whole_field((300, 400))]


def test_auto_shows_a_small_box_its_own_field(model: Any) -> None:
    segmenter, image = Segmenter(model), np.random.default_rng(0).integers(0, 255, (300, 400), dtype=np.uint8)
    small, large = segmenter.predict(
        Plane.from_array(image),
        [[20, 40, 60, 80], [10, 10, 290, 390]],
    )
    assert small.field.kind == "centred"
    assert large.field == whole_field((300, 400))
    assert (small.row, small.col) == pytest.approx((20, 40), abs=2)
    assert small.mask.shape == pytest.approx((40, 40), abs=3)
    assert isinstance(small.field, Field)
    assert len(model.encoded) == 2
