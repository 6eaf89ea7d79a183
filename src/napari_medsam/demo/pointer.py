"""Mouse events on a viewer's canvas, as a person's hand would make them: for the demo, the benchmarks and tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_medsam.errors import MedSAMError

if TYPE_CHECKING:
    from napari.viewer import Viewer

World = Sequence[float]


class Pointer:
    """Presses, drags and releases the left button over one viewer's canvas.

    Positions are (row, col) in the world coordinates of the two displayed axes. The viewer must be the only one
    whose window is visible.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.canvas = find_canvas()

    def to_canvas(self, position: World) -> QPoint:
        """Map a world position to a pixel of the canvas widget."""
        camera = self.viewer.scene.camera
        center, zoom = camera.center, camera.zoom
        ratio = self.canvas.devicePixelRatioF()
        row = (position[0] - center[-2]) * zoom / ratio + self.canvas.height() / 2
        col = (position[1] - center[-1]) * zoom / ratio + self.canvas.width() / 2
        return QPoint(round(col), round(row))

    def press(self, position: World) -> None:
        QTest.mouseMove(self.canvas, self.to_canvas(position))
        QTest.mousePress(self.canvas, _LEFT, pos=self.to_canvas(position))

    def move(self, position: World) -> None:
        QTest.mouseMove(self.canvas, self.to_canvas(position))
        QApplication.processEvents()

    def release(self, position: World) -> None:
        QTest.mouseRelease(self.canvas, _LEFT, pos=self.to_canvas(position))

    def drag(self, positions: Sequence[World], steps: int = 6) -> None:
        """Press at the first position, move in ``steps`` straight steps to each next one, release at the last."""
        self.press(positions[0])
        for start, stop in pairwise(positions):
            for step in range(1, steps + 1):
                part = step / steps
                self.move([a + (b - a) * part for a, b in zip(start, stop, strict=True)])
        self.release(positions[-1])


_LEFT = Qt.MouseButton.LeftButton


def find_canvas() -> QWidget:
    """The visible canvas widget. Raises MedSAMError when no viewer's window is open."""
    for widget in QApplication.allWidgets():
        kind: Any = type(widget)
        if kind.__name__ == "CanvasBackendDesktop" and widget.isVisible():
            return widget
    raise MedSAMError("No napari window is open, so there is nothing to click on.")
