"""One Points layer as the clicks of a document: which part each belongs to, and whether it lies on it (plus) or not.

The object's id, the part's plane and the sign live in the layer's features. A point that is new has no part until
`assign` gives it one. The order of the rows is the order of the clicks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_medsam.document.objects import PartKey, PlaneKey

if TYPE_CHECKING:
    from napari.layers import Points

OTHER_SIGN = ("Alt", "Control")
"""Held while clicking, one of these gives the other sign. Many desktops move windows with Alt and the mouse."""

LOOKS = {True: ("cross", "#2ee65a"), False: ("hbar", "#ff3b3b")}
NEW, REFUSED = 0, -1

Row = tuple[int, PlaneKey | None, bool]
"""What the features say of a point: its object's id, the plane of the part, its sign."""


@dataclass(frozen=True, eq=False)
class Click:
    """One point: its row in the layer, its place (D,) in the layer's data coordinates, its sign."""

    row: int
    place: npt.NDArray[np.float64]
    positive: bool


class ClickLayer:
    """Watches a Points layer.

    ``changed()`` is emitted once a point was added, moved or removed for good; ``finished()`` when the user asks for
    the next object, ``undone()`` when the last click is to be taken back, ``sign_changed(bool)`` when a key chose
    plus or minus.
    """

    changed = Signal()
    finished = Signal()
    undone = Signal()
    sign_changed = Signal(bool)

    def __init__(self, layer: Points) -> None:
        self.layer = layer
        self.positive = True
        self._other = False
        self._count = 0
        self._quiet_depth = 0
        with self._quiet():
            self._complete_features()
        layer.events.data.connect(self._on_data)
        layer.mouse_drag_callbacks.append(self._on_press)
        self._bind_keys()
        self.choose_sign(True)

    def close(self) -> None:
        self.layer.events.data.disconnect(self._on_data)
        self.layer.mouse_drag_callbacks.remove(self._on_press)

    def new(self) -> list[Click]:
        """The points that belong to nobody yet, with the sign they were clicked with."""
        positive = self.positive != self._other
        return [
            Click(row, np.array(self.layer.data[row], dtype=float), positive)
            for row in range(self._count, len(self.layer.data))
        ]

    def clicks(self) -> dict[PartKey, list[Click]]:
        """The clicks of each part, in their order; not those that are new."""
        found: dict[PartKey, list[Click]] = {}
        for row, (object_id, plane, positive) in enumerate(self._rows()[: self._count]):
            if object_id > NEW and plane is not None:
                place = np.array(self.layer.data[row], dtype=float)
                found.setdefault((object_id, plane), []).append(Click(row, place, positive))
        return found

    def assign(self, owners: Mapping[int, PartKey], clicks: Iterable[Click]) -> None:
        """Give new points their parts (row -> key; none: refused) and signs; all points count as known then."""
        rows = self._rows()
        for click in clicks:
            rows[click.row] = (*owners.get(click.row, (REFUSED, None)), click.positive)
        self._write(rows)
        self._count = len(self.layer.data)
        self._other = False

    def sweep(self) -> None:
        """Take refused points off the layer, and the selection that hides the looks of the point just added."""
        if str(self.layer.mode) == "add":
            self.layer.selected_data = set()
        self._remove([row for row, (object_id, *_) in enumerate(self._rows()) if object_id == REFUSED])

    def add(self, clicks: Mapping[PartKey, Sequence[tuple[npt.NDArray[np.float64], bool]]]) -> None:
        """Show clicks of parts that the document has already: key -> (place, sign) of each click."""
        rows = self._rows()
        places = [place for own in clicks.values() for place, _ in own]
        with self._quiet():
            self.layer.add(np.asarray(places, dtype=float))
        self._write([*rows, *((*key, sign) for key, own in clicks.items() for _, sign in own)])
        self._count = len(self.layer.data)

    def take_off(self, parts: Iterable[PartKey]) -> None:
        """Take the clicks of parts off the layer."""
        gone = {(object_id, plane) for object_id, plane in parts}
        self._remove([row for row, (*key, _) in enumerate(self._rows()) if tuple(key) in gone])

    def take_last(self) -> PartKey | None:
        """Take the newest click off, as the user would, and return its part; None when there is none."""
        if self._count == 0:
            return None
        object_id, plane, _ = self._rows()[self._count - 1]
        self.layer.remove([self._count - 1])
        return None if plane is None else (object_id, plane)

    def choose_sign(self, positive: bool) -> None:
        """Set what the next click says: on the object, or not."""
        self.positive = positive
        symbol, color = LOOKS[positive]
        with self._quiet():
            self.layer.selected_data = set()  # or they would take the looks of the next
            self.layer.current_symbol = symbol
            self.layer.current_face_color = self.layer.current_border_color = color

    # ---------------------------------------------------------------------------------------------------------

    def _rows(self) -> list[Row]:
        frame = self.layer.features
        return [
            (int(object_id), plane or None, bool(positive))
            for object_id, plane, positive in zip(
                frame["object"], frame["object_plane"], frame["positive"], strict=True
            )
        ]

    def _write(self, rows: Sequence[Row]) -> None:
        frame = self.layer.features.copy()
        planes = np.full(len(rows), None, dtype=object)
        planes[:] = [plane for _, plane, _ in rows]
        frame["object"] = np.array([object_id for object_id, *_ in rows], dtype=int)
        frame["object_plane"] = planes
        frame["positive"] = np.array([positive for *_, positive in rows], dtype=bool)
        with self._quiet():
            self.layer.features = frame
            if rows:
                self.layer.symbol = [LOOKS[positive][0] for *_, positive in rows]
                colors = [LOOKS[positive][1] for *_, positive in rows]
                self.layer.face_color = self.layer.border_color = colors  # so small, a point is mostly border

    def _remove(self, rows: list[int]) -> None:
        if rows:
            with self._quiet():
                self.layer.remove(rows)
            self._count -= sum(row < self._count for row in rows)

    def _complete_features(self) -> None:
        frame = self.layer.features.copy()
        frame["object"] = np.full(len(self.layer.data), NEW, dtype=int)
        frame["object_plane"] = np.full(len(self.layer.data), None, dtype=object)
        frame["positive"] = np.full(len(self.layer.data), True, dtype=bool)
        self.layer.features = frame
        self.layer.feature_defaults = {"object": NEW, "object_plane": None, "positive": True}

    def _bind_keys(self) -> None:
        def tool(positive: bool) -> None:
            self.layer.mode = "add"
            self.choose_sign(positive)
            self.sign_changed.emit(positive)

        def delete(layer: Points) -> None:
            if layer.selected_data:
                layer.remove_selected()
            else:
                self.undone.emit()

        for key, call in (
            ("P", lambda _: tool(True)),  # napari's own key for the tool that adds points
            ("N", lambda _: tool(False)),
            ("Enter", lambda _: self.finished.emit()),
            ("Control-Z", lambda _: self.undone.emit()),
            ("Backspace", delete),
        ):
            self.layer.bind_key(key, call, overwrite=True)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """While it is open, changes of the layer are our own and not worth a signal."""
        self._quiet_depth += 1
        try:
            yield
        finally:
            self._quiet_depth -= 1

    def _on_press(self, _layer: Points, event: Any) -> None:
        self._other = any(modifier in OTHER_SIGN for modifier in event.modifiers)

    def _on_data(self, event: Any) -> None:
        action = str(getattr(event, "action", "changed"))
        if self._quiet_depth or action not in ("added", "changed", "removed"):
            return
        if action == "removed":
            self._count -= sum(row < self._count for row in set(event.data_indices))
        self._count = max(0, min(self._count, len(self.layer.data)))
        self.changed.emit()
