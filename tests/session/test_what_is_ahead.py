"""What is embedded before anybody asks follows the view: its own fields, middle first, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.fields import FieldPolicy
from napari_medsam.session.prefetch import (
    AHEAD,
    AHEAD_FIELDS,
    NEXT,
    NEXT_FIELD,
    NEXT_FIELDS,
    SHOWN,
    WARM_FIELDS,
    Prefetch,
)

SHAPE = (600, 900)
VIEW = Box(300, 500, 350, 620)  # its longer side is 120: fields of 64
OUTLOOK = Prefetch(FieldPolicy())


def make_plane(shape: tuple[int, int] = SHAPE) -> Plane:
    return Plane.from_array(np.zeros(shape, np.uint8))


def huge_plane() -> Plane:
    """One whose pixels nobody could read in a moment."""
    nothing: Any = SimpleNamespace(shape=(50_000, 60_000), dtype=np.dtype(np.uint8), ndim=2)
    return Plane.from_array(nothing)


def meets(field: Field, view: Box) -> bool:
    r0, c0, r1, c1 = view
    inside_rows = field.row < r1 and r0 < field.row + field.height
    return inside_rows and field.col < c1 and c0 < field.col + field.width


class TestOnScreen:
    def test_the_plane_whole_and_then_the_fields_under_the_view(self) -> None:
        first, *rest = OUTLOOK.on_screen(make_plane(), VIEW)
        assert (first.field, first.priority) == (whole_field(SHAPE), SHOWN)
        assert rest
        assert {todo.priority for todo in rest} == {AHEAD}
        assert {(todo.field.height, todo.field.width) for todo in rest} == {(64, 64)}
        assert all(meets(todo.field, VIEW) for todo in rest)

    def test_all_of_the_view_is_covered(self) -> None:
        covered = np.zeros(SHAPE, bool)
        for todo in OUTLOOK.on_screen(make_plane(), VIEW)[1:]:
            covered[todo.field.row :, todo.field.col :][: todo.field.height, : todo.field.width] = True
        r0, c0, r1, c1 = VIEW
        assert covered[r0:r1, c0:c1].all()

    def test_the_middle_of_the_view_comes_first(self) -> None:
        fields = [todo.field for todo in OUTLOOK.on_screen(make_plane(), VIEW)[1:]]
        away = [
            np.hypot(f.row + f.height / 2 - 325, f.col + f.width / 2 - 560)
            for f in fields  # from the view's middle
        ]
        assert away == sorted(away)
        assert away[0] < 32

    @pytest.mark.parametrize(
        ("view", "side"),
        [(Box(0, 0, 60, 50), 32), (VIEW, 64), (Box(10, 500, 210, 520), 128), (None, 512)],
    )
    def test_the_fields_are_half_as_long_as_the_view(self, view: Box | None, side: int) -> None:
        fields = [todo.field for todo in OUTLOOK.on_screen(make_plane(), view)[1:]]
        assert {max(field.height, field.width) for field in fields} == {side}

    def test_no_more_than_so_many_and_of_them_the_middle_ones_are_made_ready(self) -> None:
        found = OUTLOOK.on_screen(make_plane((4000, 4000)), Box(1001, 1001, 1127, 1127))
        assert len(found) == 1 + AHEAD_FIELDS
        assert [todo.warm for todo in found] == [True] * WARM_FIELDS + [False] * (
            1 + AHEAD_FIELDS - WARM_FIELDS
        )

    def test_a_plane_that_takes_long_to_read_is_embedded_by_its_fields_alone(self) -> None:
        found = OUTLOOK.on_screen(huge_plane(), VIEW)
        assert whole_field((50_000, 60_000)) not in [todo.field for todo in found]
        assert [todo.priority for todo in found] == [SHOWN] + [AHEAD] * (len(found) - 1)

    def test_a_small_plane_is_embedded_once(self) -> None:
        assert [todo.field for todo in OUTLOOK.on_screen(make_plane((30, 30)), None)] == [
            whole_field((30, 30))
        ]

    def test_no_fields_where_they_are_not_wanted(self) -> None:
        for outlook in (Prefetch(FieldPolicy(), "whole"), Prefetch(FieldPolicy(), ahead=False)):
            assert [todo.field for todo in outlook.on_screen(make_plane(), VIEW)] == [whole_field(SHAPE)]
        assert Prefetch(FieldPolicy(), ahead=False).on_screen(huge_plane(), VIEW) == []
        assert len(Prefetch(FieldPolicy(), "whole").on_screen(huge_plane(), VIEW)) == 1


class TestNextToIt:
    def test_whole_slices_first_nearest_first_and_then_their_fields_under_the_same_view(self) -> None:
        planes = [make_plane(), make_plane()]
        found = OUTLOOK.next_to_it(planes, VIEW)
        assert [todo.plane for todo in found[:2]] == planes
        assert [(todo.field, todo.priority) for todo in found[:2]] == [(whole_field(SHAPE), NEXT)] * 2
        assert {todo.priority for todo in found[2:]} == {NEXT_FIELD}
        assert not any(todo.warm for todo in found)
        shown = [todo.field for todo in OUTLOOK.on_screen(make_plane(), VIEW)[1 : 1 + NEXT_FIELDS]]
        for number, plane in enumerate(planes):
            part = found[2 + number * NEXT_FIELDS :][:NEXT_FIELDS]
            assert [todo.field for todo in part] == shown
            assert all(todo.plane is plane for todo in part)
        assert len(found) == 2 + 2 * NEXT_FIELDS

    def test_what_is_whole_already_is_not_embedded_twice(self) -> None:
        planes = [make_plane((30, 30)), make_plane((30, 30))]
        assert [todo.field for todo in OUTLOOK.next_to_it(planes, None)] == [whole_field((30, 30))] * 2

    def test_slices_that_take_long_to_read_have_fields_only(self) -> None:
        found = OUTLOOK.next_to_it([huge_plane()], VIEW)
        assert len(found) == NEXT_FIELDS
        assert {todo.priority for todo in found} == {NEXT_FIELD}

    def test_less_where_less_is_wanted(self) -> None:
        assert Prefetch(FieldPolicy(), ahead=False).next_to_it([make_plane()], VIEW) == []
        [only] = Prefetch(FieldPolicy(), "whole").next_to_it([make_plane()], VIEW)
        assert only.field == whole_field(SHAPE)
