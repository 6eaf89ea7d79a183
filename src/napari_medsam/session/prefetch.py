"""What is embedded before anybody asks, in which order: the view, what lies around it, the slices next to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.fields import FieldPolicy, grid_fields, grid_side, shown_whole

SHOWN, AHEAD, NEXT, NEXT_FIELD = 10, 20, 30, 31
"""Priorities of the encoder's queue after a waiting prompt's 0: the plane on screen, its fields under the view, whole
slices next to it, their fields under the view."""

AHEAD_FIELDS, NEXT_FIELDS, WARM_FIELDS = 24, 9, 12
"""At most so many fields of the view and of a slice next to it; so many of the view are made ready for the decoder."""


@dataclass(frozen=True, eq=False)
class Todo:
    """One field to embed. `warm`: make it ready for the decoder as well."""

    plane: Plane
    field: Field
    priority: int
    warm: bool = False


@dataclass(frozen=True)
class Prefetch:
    """Lays out what to embed. choice: "auto" or "whole", see `Settings.field`; ahead: more than the first field."""

    policy: FieldPolicy
    choice: str = "auto"
    ahead: bool = True

    def on_screen(self, plane: Plane, view: Box | None) -> list[Todo]:
        """The plane whole, unless it takes long to read, then the fields under `view`, middle first."""
        fields = [whole_field(plane.shape)] if shown_whole(plane) or self.choice != "auto" else []
        if self.choice == "auto" and self.ahead:
            fields += self._under(plane, view)[:AHEAD_FIELDS]
        return [
            Todo(plane, field, AHEAD if order else SHOWN, order < WARM_FIELDS)
            for order, field in enumerate(dict.fromkeys(fields))
        ]

    def next_to_it(self, planes: Sequence[Plane], view: Box | None) -> list[Todo]:
        """Slices that may be looked at next, nearest first: each whole, and then their fields under the same view."""
        if not self.ahead:
            return []
        whole = [Todo(plane, whole_field(plane.shape), NEXT) for plane in planes if shown_whole(plane)]
        if self.choice != "auto":
            return whole
        known = {(id(todo.plane), todo.field) for todo in whole}
        return whole + [
            Todo(plane, field, NEXT_FIELD)
            for plane in planes
            for field in self._under(plane, view)[:NEXT_FIELDS]
            if (id(plane), field) not in known
        ]

    def _under(self, plane: Plane, view: Box | None) -> list[Field]:
        box = view or Box.of_plane(plane.shape)
        return grid_fields(box, grid_side(box, self.policy), plane.shape)
