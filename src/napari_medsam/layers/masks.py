"""One Labels layer as the canvas of a document: regions in and out, and what the user's brush did."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_medsam.document.objects import PlaneKey
from napari_medsam.errors import ImageError
from napari_medsam.geometry import Box, Patch
from napari_medsam.layers.geometry import WorkAxes
from napari_medsam.layers.stroke import Stroke, stroke_of

if TYPE_CHECKING:
    from napari.layers import Labels


@dataclass(frozen=True, eq=False)
class _Held:
    """Pixels of a region that are still to be set: one array an axis, and their labels."""

    plane: PlaneKey
    box: Box
    indices: tuple[npt.NDArray[np.intp], ...]
    values: npt.NDArray[np.integer]

    def meets(self, plane: PlaneKey, box: Box) -> bool:
        """Whether a region of a plane may have some of the pixels. Called for every pair: kept cheap."""
        if plane.displayed != self.plane.displayed:
            return True
        return self.box.meets(box) and plane == self.plane


LOOK_THROUGH_S = 1.0
HELD_MOST = 32
"""More regions are set before more are collected: each new one is compared with all that are held."""

BLOCK = 2**22


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of an array of about `BLOCK` elements or less that together are all of it."""
    if int(np.prod(shape)) <= BLOCK:
        yield tuple(slice(0, length) for length in shape)
        return
    axis = next(n for n, length in enumerate(shape) if length > 1)
    step = max(1, BLOCK * shape[axis] // int(np.prod(shape)))
    for start in range(0, shape[axis], step):
        part = min(step, shape[axis] - start)
        for inner in _blocks((*shape[:axis], part, *shape[axis + 1 :])):
            yield tuple(
                slice(start + cut.start, start + cut.stop) if n == axis else cut
                for n, cut in enumerate(inner)
            )


class MaskLayer:
    """Reads and writes the labels of single planes, in plane orientation.

    ``painted(Stroke)`` is emitted after an edit that did not come from ``write``; ``refreshed()`` when the layer's
    data may have changed in a way that cannot be told (undo, redo, new data); ``chosen(label)`` when the user picked
    another label for the brush; ``pressed()`` before a tool of the layer learns that the mouse was pressed on it.
    ``in_hand`` is True until it is released.
    """

    painted = Signal(object)
    refreshed = Signal()
    chosen = Signal(int)
    pressed = Signal()

    def __init__(self, layer: Labels, axes: WorkAxes) -> None:
        self.layer = layer
        self._axes = axes
        self.in_hand = False
        self._writing = False
        self._choosing = False
        self._step_open = False
        self._held: list[_Held] = []
        self._stale = False  # what is shown is older than what was set
        layer.mouse_drag_callbacks.insert(0, self._on_drag)  # before the tool's own
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)
        layer.events.selected_label.connect(self._on_selected)

    def close(self) -> None:
        self.layer.mouse_drag_callbacks.remove(self._on_drag)
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.set_data.disconnect(self._on_set_data)
        self.layer.events.selected_label.disconnect(self._on_selected)

    def largest(self, patience: float = LOOK_THROUGH_S) -> int:
        """The largest label in use, looked for block by block for at most so many seconds.

        Where that is not enough the result is at least half of what the type holds, which nobody counts up to.
        """
        data, found = self.layer.data, 0
        deadline = time.monotonic() + patience
        for block in _blocks(data.shape):
            found = max(found, int(np.max(np.asarray(data[block]), initial=0)))
            if time.monotonic() > deadline:
                return max(found, self._capacity // 2)
        return found

    def shape(self, plane: PlaneKey) -> tuple[int, int]:
        shape = self.layer.data.shape
        return shape[self._axis(plane.displayed[0])], shape[self._axis(plane.displayed[1])]

    def read(self, plane: PlaneKey, box: Box) -> npt.NDArray[np.integer]:
        """Copy the labels of a region: (r1 - r0, c1 - c0), rows and columns as displayed."""
        region = np.array(self.layer.data[self._key(plane, box)])
        row, col = plane.displayed
        return region if row < col else region.T

    def write(
        self,
        plane: PlaneKey,
        box: Box,
        labels: npt.NDArray[np.integer],
        current: npt.NDArray[np.integer] | None = None,
    ) -> bool:
        """Set a region to ``labels`` (h, w) as one undoable step; True if a pixel changed.

        current: what ``current`` gave for the region just now. Raises ImageError when the layer's dtype cannot hold a
        label.
        """
        rows, cols = np.nonzero(labels != (self.current(plane, box) if current is None else current))
        if rows.size == 0:
            return False
        values = labels[rows, cols]
        self.check(int(values.max()))
        indices = self._indices(plane, rows + box.corner[0], cols + box.corner[1])
        if len(self._held) >= HELD_MOST:
            self.flush()
        self._held.append(_Held(plane, box, indices, values))
        if not self._step_open:
            self.flush(refresh=True)
        return True

    def current(self, plane: PlaneKey, box: Box) -> npt.NDArray[np.integer]:
        """Like ``read``, with what a step that is open has not set yet. Main thread."""
        if any(held.meets(plane, box) for held in self._held):
            self.flush()
        return self.read(plane, box)

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """All that is written while it is open is one undoable step, and shown at its end.

        Regions are collected and set together: each call of napari costs as much as a small mask does.
        """
        step = ExitStack()
        step.enter_context(self.layer.block_history())
        self._step_open = True
        try:
            yield
        finally:
            self._step_open = False
            self.flush(refresh=True)
            with self._quiet():
                step.close()

    def flush(self, *, refresh: bool = False) -> None:
        """Set the regions that were collected; without ``refresh`` they are shown with the next that are."""
        held, self._held = self._held, []
        if held:
            indices = tuple(np.concatenate(axis) for axis in zip(*(one.indices for one in held), strict=True))
            values = np.concatenate([one.values for one in held])
            with self._quiet():
                self.layer.data_setitem(indices, values, refresh=refresh)
            self._stale = not refresh
        elif refresh and self._stale:
            self.refresh()

    def put(self, plane: PlaneKey, patch: Patch, label: int) -> None:
        """Set the free pixels of a mask to a label, not as a step that undo takes back; ``refresh`` shows it.

        Raises ImageError when the layer's dtype cannot hold the label.
        """
        self.check(label)
        box = patch.box.intersect(Box.of_plane(self.shape(plane)))
        if box.empty:
            return
        region = self.read(plane, box)
        region[patch.within(box) & (region == 0)] = label
        row, col = plane.displayed
        self.layer.data[self._key(plane, box)] = region if row < col else region.T

    def refresh(self) -> None:
        """Show what ``put`` has set."""
        with self._quiet():
            self.layer.refresh()
        self._stale = False

    def planes_of(self, stroke: Stroke, shown: PlaneKey) -> list[PlaneKey]:
        """The planes that a stroke touched, as they lie in the view of ``shown``."""
        fixed = list(self._fixed(shown))
        if not fixed:
            return [shown]
        places = np.unique(np.stack([stroke.indices[axis] for axis in fixed]), axis=1).T
        found = []
        for place in places.tolist():
            index = list(shown.index)
            for axis, position in zip(fixed, place, strict=True):
                if index[axis + self._axes.dropped] is not None:
                    index[axis + self._axes.dropped] = int(position)
            found.append(PlaneKey(tuple(index), shown.displayed))
        return found

    def choose(self, label: int) -> None:
        """Make a label the one that the brush paints, where the layer's dtype can hold it."""
        if label <= self._capacity:
            self._choosing = True
            try:
                self.layer.selected_label = label
            finally:
                self._choosing = False

    def check(self, label: int) -> None:
        """Raises ImageError when the layer's dtype cannot hold a label."""
        largest = self._capacity
        if label > largest:
            raise ImageError(
                f"{self.layer.name}: its type {self.layer.data.dtype} holds labels up to {largest}, so object "
                f"{label} does not fit. Convert the labels to int32 (right click the layer, Convert data type)."
            )

    @property
    def _capacity(self) -> int:
        return int(np.iinfo(self.layer.data.dtype).max)

    def stroke_box(self, stroke: Stroke, plane: PlaneKey) -> Box | None:
        """Return the box of a stroke in one plane; None if it did not touch that plane."""
        inside = self._inside(stroke.indices, plane)
        if not inside.any():
            return None
        rows = stroke.indices[self._axis(plane.displayed[0])][inside]
        cols = stroke.indices[self._axis(plane.displayed[1])][inside]
        return Box(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)

    def labels_touched(self, stroke: Stroke) -> set[int]:
        """Labels that lost or gained pixels by the stroke, background left out."""
        return {int(label) for label in np.union1d(stroke.old, stroke.new) if label}

    def before(self, stroke: Stroke, plane: PlaneKey, box: Box) -> npt.NDArray[np.integer]:
        """Return the labels of a region as they were before the stroke: (h, w)."""
        return self._with(stroke.indices, stroke.old, plane, box)

    def after(self, stroke: Stroke, plane: PlaneKey, box: Box) -> npt.NDArray[np.integer]:
        """Return the labels of a region as they are after the stroke: (h, w).

        napari tells of a stroke before or after it changes the data, depending on the tool.
        """
        return self._with(tuple(axis[::-1] for axis in stroke.indices), stroke.new[::-1], plane, box)

    def _with(
        self,
        indices: tuple[npt.NDArray[np.intp], ...],
        values: npt.NDArray[np.integer],
        plane: PlaneKey,
        box: Box,
    ) -> npt.NDArray[np.integer]:
        """Read a region and set those of the pixels that lie in it; of a pixel listed twice the last entry holds."""
        region = self.read(plane, box)
        rows = indices[self._axis(plane.displayed[0])] - box.corner[0]
        cols = indices[self._axis(plane.displayed[1])] - box.corner[1]
        inside = self._inside(indices, plane) & (rows >= 0) & (cols >= 0)
        inside &= (rows < region.shape[0]) & (cols < region.shape[1])
        region[rows[inside], cols[inside]] = values[inside]
        return region

    # ---------------------------------------------------------------------------------------------------------

    def _axis(self, axis: int) -> int:
        return axis - self._axes.dropped

    def _fixed(self, plane: PlaneKey) -> dict[int, int]:
        kept = enumerate(plane.index[self._axes.kept])
        shown = {self._axis(axis) for axis in plane.displayed}
        return {axis: position or 0 for axis, position in kept if axis not in shown}

    def _key(self, plane: PlaneKey, box: Box) -> tuple[int | slice, ...]:
        key: list[int | slice] = [slice(None)] * self.layer.data.ndim
        for axis, position in self._fixed(plane).items():
            key[axis] = position
        for axis, part in zip(plane.displayed, box.slices, strict=True):
            key[self._axis(axis)] = part
        return tuple(key)

    def _indices(
        self, plane: PlaneKey, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.intp], ...]:
        fixed = self._fixed(plane)
        arrays = {axis: np.full(rows.shape, position) for axis, position in fixed.items()}
        arrays[self._axis(plane.displayed[0])] = rows
        arrays[self._axis(plane.displayed[1])] = cols
        return tuple(arrays[axis] for axis in range(self.layer.data.ndim))

    def _inside(self, indices: tuple[npt.NDArray[np.intp], ...], plane: PlaneKey) -> npt.NDArray[np.bool_]:
        inside = np.ones(indices[0].shape, dtype=bool)
        for axis, position in self._fixed(plane).items():
            inside &= indices[axis] == position
        return inside

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """While it is open, changes of the layer are our own."""
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before

    def _on_drag(self, _layer: Labels, event: Any) -> Generator[None, None, None]:
        self.in_hand = True
        self.pressed.emit()
        try:
            yield
            while event.type == "mouse_move":
                yield
        finally:
            self.in_hand = False

    def _on_paint(self, event: Any) -> None:
        if self._writing:
            return
        if event.value:
            self.painted.emit(stroke_of(event.value))

    def _on_selected(self) -> None:
        if not self._choosing:
            self.chosen.emit(int(self.layer.selected_label))

    def _on_set_data(self) -> None:
        if not self._writing:
            self.refreshed.emit()
