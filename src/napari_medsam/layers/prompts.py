"""One Shapes layer as the prompts of a document: which shape is which part, and what changed since last time.

The object's id and the part's plane live in the layer's features, so they survive deletion and reordering of other
shapes, and a shape that is moved to another plane is known by the one it came from. A shape that is new (id 0) or was
copied (a part that stands twice) is a new object.
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
    from napari.layers import Shapes
    from pandas import DataFrame

COLUMNS: Mapping[str, Any] = {"object": 0, "object_plane": None, "class_id": 1, "label": ""}
FLAT = ("path", "line")  # outlines without an inside: no boxes
MOVED = 1e-6  # data units: nearer is the same place
REFUSED = -1  # in place of an object's id: to be taken off
SCREEN_TEXT = {"string": "{label}", "anchor": "upper_left", "size": 9, "color": "#ffe119"}


@dataclass(frozen=True, eq=False)
class Drawn:
    """One shape: its object's id (0: new), the plane of the part that it prompts (None: new), its class, its vertices
    (k, D) in the layer's data coordinates, its kind."""

    object_id: int
    plane: PlaneKey | None
    class_id: int
    vertices: npt.NDArray[np.float64]
    kind: str

    @property
    def key(self) -> PartKey | None:
        return None if self.object_id <= 0 or self.plane is None else (self.object_id, self.plane)


@dataclass(frozen=True, eq=False)
class Changes:
    """What happened to the shapes since the last look. ``added`` maps the shape's row in the layer."""

    added: Mapping[int, Drawn]
    moved: Mapping[PartKey, Drawn]
    removed: tuple[PartKey, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.moved or self.removed)


class PromptLayer:
    """Watches a Shapes layer; ``changed()`` is emitted once a shape was added, changed or removed for good
    (after the mouse is released, not while it drags); ``picked(id)`` when the user selected one object's shape."""

    changed = Signal()
    picked = Signal(int)

    def __init__(self, layer: Shapes) -> None:
        self.layer = layer
        self._known: dict[PartKey, npt.NDArray[np.float64]] = {}
        self._busy = False
        self._complete_features()
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)
        layer.selected_data.events.items_changed.connect(self._on_selected)

    def close(self) -> None:
        self.layer.selected_data.events.items_changed.disconnect(self._on_selected)
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.features.disconnect(self._on_features)

    def changes(self) -> Changes:
        """Compare the layer with what was last remembered; new and copied shapes count as added."""
        added: dict[int, Drawn] = {}
        moved: dict[PartKey, Drawn] = {}
        seen: set[PartKey] = set()
        for row, drawn in self._drawn().items():
            known = None if drawn.key is None else self._known.get(drawn.key)
            if drawn.key is None or known is None or drawn.key in seen:
                added[row] = drawn
                continue
            seen.add(drawn.key)
            if known.shape != drawn.vertices.shape or not (abs(known - drawn.vertices) <= MOVED).all():
                moved[drawn.key] = drawn
        return Changes(added, moved, tuple(key for key in self._known if key not in seen))

    def scribble(self) -> tuple[int, npt.NDArray[np.float64]] | None:
        """The path that was just drawn by hand: its row and vertices (k, D)."""
        row = self.layer.nshapes - 1
        by_hand = self.drawing and row >= 0 and row in self.layer.selected_data
        if not by_hand or self.layer.shape_type[row] not in FLAT or self._ids()[row] == REFUSED:
            return None
        return row, np.array(self.layer.data[row], dtype=float)

    def remember(self, parts: Mapping[int, PartKey]) -> None:
        """Give rows their parts (row -> key) and take the layer as it is for the state known."""
        if parts:
            self._set_column("object", {row: object_id for row, (object_id, _) in parts.items()})
            self._set_column("object_plane", {row: plane for row, (_, plane) in parts.items()})
        self._known = {drawn.key: drawn.vertices for drawn in self._drawn().values() if drawn.key is not None}

    def rename(self, part: PartKey, plane: PlaneKey) -> None:
        """The shape of a part belongs to the same object's part on another plane now."""
        rows = [row for row, key in enumerate(self._keys()) if key == part]
        self._set_column("object_plane", dict.fromkeys(rows, plane))

    def adopt(self) -> None:
        """Forget every id: a layer that was saved or copied brings ids of other objects."""
        rows = dict.fromkeys(range(self.layer.nshapes), 0)
        if rows:
            self._set_column("object", rows)

    def refuse(self, rows: Iterable[int]) -> None:
        """Mark shapes that cannot be prompts; ``sweep`` takes them off."""
        self._set_column("object", dict.fromkeys(rows, REFUSED))

    def sweep(self) -> None:
        """Take refused shapes off the layer."""
        self._remove([row for row, object_id in enumerate(self._ids()) if object_id == REFUSED])

    def take_off(self, parts: Iterable[PartKey]) -> None:
        """Take the shapes of parts off the layer that are no longer in the document."""
        gone = set(parts)
        self._remove([row for row, key in enumerate(self._keys()) if key in gone])
        for key in gone:
            self._known.pop(key, None)

    def set_classes(self, class_ids: Sequence[int]) -> None:
        """Set the class of the first shapes, in the order of the rows."""
        if not class_ids:
            return
        self._set_column("class_id", dict(zip(range(self.layer.nshapes), class_ids, strict=False)))

    def label(
        self, texts: Mapping[PartKey, str], colors: Mapping[int, str], classes: Mapping[int, int]
    ) -> None:
        """Write next to each shape what it is. texts: of each part; colors, classes: of each object by its id."""
        ids = self._ids()
        if not ids:
            return  # an empty column would lose its type
        frame = self.layer.features.copy()
        frame["label"] = ["" if key is None else texts.get(key, "") for key in self._keys()]
        frame["class_id"] = [classes.get(object_id, 1) for object_id in ids]
        wanted = [colors.get(object_id, "#ffffff") for object_id in ids]
        with self._quiet():
            if not frame.equals(self.layer.features):
                self._write(frame)
            if wanted and not _same_colors(self.layer.edge_color, wanted):
                self.layer.edge_color = wanted

    def set_new(self, class_id: int, color: str) -> None:
        """Set the class and colour of the shapes drawn from now on; selected shapes keep theirs."""
        with self._quiet():
            self._set_defaults({**COLUMNS, "class_id": class_id})
            selected = set(self.layer.selected_data)
            self.layer.selected_data = set()
            self.layer.current_edge_color = color
            self.layer.selected_data = selected

    def add(
        self, vertices: Mapping[PartKey, npt.NDArray[np.float64]], kinds: Mapping[PartKey, str] | None = None
    ) -> None:
        """Draw the shapes of parts of the document: key -> vertices (k, D), its kind if it is no rectangle."""
        if not vertices:
            return
        first, chosen = self.layer.nshapes, kinds or {}
        with self._quiet():
            self.layer.add(
                list(vertices.values()), shape_type=[chosen.get(key, "rectangle") for key in vertices]
            )
        self.remember(dict(enumerate(vertices, start=first)))

    def drawn(self, parts: Iterable[PartKey]) -> dict[PartKey, Drawn]:
        """The shapes of some parts, as they are now."""
        wanted = set(parts)
        return {one.key: one for one in self._drawn().values() if one.key is not None and one.key in wanted}

    @property
    def drawing(self) -> bool:
        """Whether a drawing tool is chosen; the shape drawn last is selected then, but nobody picked it."""
        return str(self.layer.mode).startswith("add_")

    def selected(self) -> list[int]:
        """Ids of the objects whose shapes are selected."""
        ids = self._ids()
        return [ids[row] for row in sorted(self.layer.selected_data) if row < len(ids) and ids[row] > 0]

    def select(self, object_id: int, shown: PlaneKey | None = None) -> None:
        """Select an object's shape: the one on the plane shown, if there is one."""
        keys = self._keys()
        rows = [row for row, key in enumerate(keys) if key is not None and key[0] == object_id]
        here = [row for row in rows if keys[row] == (object_id, shown)]
        self.layer.selected_data = set((here or rows)[:1])

    # ---------------------------------------------------------------------------------------------------------

    def _drawn(self) -> dict[int, Drawn]:
        frame = self.layer.features
        columns = (frame["object"], frame["object_plane"], frame["class_id"])
        rows = zip(*columns, self.layer.data, self.layer.shape_type, strict=True)
        return {
            row: Drawn(
                int(object_id), plane or None, int(class_id), np.array(vertices, dtype=float), str(kind)
            )
            for row, (object_id, plane, class_id, vertices, kind) in enumerate(rows)
            if kind not in FLAT and object_id != REFUSED
        }

    def _ids(self) -> list[int]:
        return [int(object_id) for object_id in self.layer.features["object"]]

    def _keys(self) -> list[PartKey | None]:
        planes = self.layer.features["object_plane"]
        return [
            (number, plane) if number > 0 else None for number, plane in zip(self._ids(), planes, strict=True)
        ]

    def _set_column(self, column: str, values: Mapping[int, Any]) -> None:
        frame = self.layer.features.copy()
        changed = frame[column].to_numpy(copy=True)
        for row, value in values.items():
            changed[row] = value
        frame[column] = changed
        with self.layer.text.events.blocker():  # no text shows these: to lay all out anew takes long
            self._write(frame)

    def _write(self, frame: DataFrame) -> None:
        with self._quiet():
            defaults = self.layer.feature_defaults
            self.layer.features = frame
            # napari took the last shape's values for those of the next one.
            self.layer.feature_defaults = defaults

    def _remove(self, rows: list[int]) -> None:
        if rows:
            with self._quiet():
                self.layer.remove(rows)

    def _complete_features(self) -> None:
        """Add the columns that are missing; a user's own columns stay."""
        frame = self.layer.features.copy()
        for column, default in COLUMNS.items():
            if column not in frame:
                # Without a dtype an empty column counts as float, and takes no text later.
                kind = int if isinstance(default, int) else object
                frame[column] = np.full(self.layer.nshapes, default, dtype=kind)
        self.layer.features = frame
        self._set_defaults(COLUMNS)
        self.layer.text = dict(SCREEN_TEXT)

    def _set_defaults(self, ours: Mapping[str, Any]) -> None:
        theirs = {column: values.iloc[0] for column, values in self.layer.feature_defaults.items()}
        self.layer.feature_defaults = {**theirs, **ours}

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """While it is open, changes of the layer are our own and not worth a signal."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _on_data(self, event: Any) -> None:
        if not self._busy and getattr(event, "action", "changed") in ("added", "changed", "removed"):
            self.changed.emit()

    def _on_selected(self) -> None:
        if not self._busy and not self.drawing and len(chosen := self.selected()) == 1:
            self.picked.emit(chosen[0])

    def _on_features(self) -> None:
        # All that napari says about pasted shapes.
        if not self._busy and self.changes():
            self.changed.emit()


def _same_colors(current: npt.NDArray[np.floating[Any]], wanted: list[str]) -> bool:
    rgb = [[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in wanted]
    return len(current) == len(rgb) and np.allclose(np.asarray(current)[:, :3], rgb, atol=0.01)
