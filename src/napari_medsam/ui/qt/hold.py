"""One repaint instead of two: the canvas waits a moment for the mask of the box just drawn.

Where no graphics card draws it, a repaint takes tens of milliseconds on all cores and in the main thread. The one
that only ends the drawing of a box would run beside the decoder and hold up the mask.
"""

from __future__ import annotations

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QWidget

from napari_medsam.ui.qt.bridge import single_shot

LONGEST_MS = 100


class CanvasHold(QObject):  # type: ignore[misc]
    """Keeps the canvases of the window that holds ``inside`` from repainting, for 100 ms at most."""

    def __init__(self, inside: QWidget) -> None:
        super().__init__(inside)
        self._inside = inside
        self._held: list[QWidget] = []
        self._timer = single_shot(self, self.release)

    def begin(self) -> None:
        """Hold the canvases from now on; while they are held the time does not start again."""
        if self._held:
            return
        self._held = [canvas for canvas in self._canvases() if canvas.updatesEnabled()]
        for canvas in self._held:
            canvas.setUpdatesEnabled(False)
        self._timer.start(LONGEST_MS)

    def release(self) -> None:
        """Let the canvases repaint, at once if they have to."""
        self._timer.stop()
        held, self._held = self._held, []
        for canvas in held:
            canvas.setUpdatesEnabled(True)

    def _canvases(self) -> list[QWidget]:
        return [
            child
            for child in self._inside.window().findChildren(QWidget)
            if type(child).__name__ == "CanvasBackendDesktop"
        ]
