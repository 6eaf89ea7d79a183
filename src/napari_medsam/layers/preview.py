"""The mask of a box that is still being dragged, shown live: at most one decode at a time, and the newest box wins.

It lies in a Labels layer of its own, as large as the mask, that is emptied when the button is released. Nothing of it
enters the document or napari's undo.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_medsam.document.objects import PlaneKey
from napari_medsam.errors import MedSAMError
from napari_medsam.geometry import Box
from napari_medsam.layers.geometry import on_screen
from napari_medsam.layers.make import add_preview, show_preview
from napari_medsam.segment.prediction import Prediction

if TYPE_CHECKING:
    from napari.layers import Labels, Shapes

    from napari_medsam.layers.stage import Stage

LEAST_PX = 8.0  # of the longer side on screen: a box that small says nothing yet


class Preview:
    """Watches the mouse over the Shapes layer that it is attached to."""

    def __init__(self, stage: Stage) -> None:
        self.layer: Labels | None = None
        self._stage = stage
        self._shapes: Shapes | None = None
        self._drag = 0
        self._waiting: tuple[PlaneKey, Box] | None = None
        self._asked = False

    def attach(self, shapes: Shapes) -> None:
        self.drop()
        self._shapes = shapes
        shapes.mouse_drag_callbacks.append(self._on_drag)

    def drop(self) -> None:
        """Let go of the layers; the preview leaves the viewer."""
        if self._shapes is not None:
            self._end()
            self._shapes.mouse_drag_callbacks.remove(self._on_drag)
            self._shapes = None
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._stage.viewer.layers:
            self._stage.viewer.layers.remove(layer)

    def _on_drag(self, _layer: Shapes, event: Any) -> Generator[None, None, None]:
        yield
        while event.type == "mouse_move":
            # The tool that drags the shape may be told of the move after us.
            self._stage.later(partial(self._look_again, self._drag))
            yield
        self._end()

    def _look_again(self, drag: int) -> None:
        if drag == self._drag:
            self._look()

    def _look(self) -> None:
        """Ask for the box as it is now, or remember it until the decoder is free."""
        shapes, stage = self._shapes, self._stage
        if not stage.choices.preview or shapes is None or len(shapes.selected_data) != 1:
            return
        row = next(iter(shapes.selected_data))
        if row >= shapes.nshapes or shapes.shape_type[row] != "rectangle":
            return
        vertices = shapes.data[row]
        if on_screen(vertices, shapes, stage.viewer) < LEAST_PX:
            return
        try:
            key, box = stage.placement(shapes).box_of(vertices)
            self._waiting = key, box.clip(stage.plane(key).shape)
        except MedSAMError:
            return
        self._ask()

    def _ask(self) -> None:
        if self._asked or self._waiting is None:
            return
        (key, box), self._waiting = self._waiting, None
        self._asked = True
        stage = self._stage
        stage.session.peek(stage.plane(key), box, partial(self._arrived, self._drag, key))

    def _arrived(self, drag: int, key: PlaneKey, found: Prediction | None) -> None:
        self._asked = False
        if drag == self._drag and found is not None and self._shapes is not None:
            self._show(key, found)
        self._ask()

    def _show(self, key: PlaneKey, found: Prediction) -> None:
        stage = self._stage
        if self.layer is None or self.layer not in stage.viewer.layers:
            self.layer = add_preview(stage.viewer, stage.image, stage.axes)
        show_preview(self.layer, found, key, stage.image, stage.axes)

    def _end(self) -> None:
        """The drag is over: what is still to come of it is not shown."""
        self._drag += 1
        self._waiting = None
        if self.layer is not None:
            self.layer.visible = False
