"""The MedSAM dock widget: sections that show a desk and pass on what the user does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QTimer

from napari_medsam.ui.desk.desk import Desk
from napari_medsam.ui.dock.recovery_row import RecoveryRow
from napari_medsam.ui.dock.sections import (
    CacheSection,
    ExportSection,
    ImageSection,
    ObjectSection,
    ProgressSection,
)
from napari_medsam.ui.dock.tools import PromptTools
from napari_medsam.ui.qt.hold import CanvasHold
from napari_medsam.ui.qt.panel import Panel

FIRST_WORK_MS = 50  # after the window is up: nothing heavy before


class MedSAMDock(Panel):
    """Draw boxes on an image, get masks, correct them, export training cases.

    The desk ends with its dock. ``open_retrain`` opens the Retrain panel of a desk.
    """

    def __init__(self, desk: Desk, open_retrain: Callable[[Desk], object]) -> None:
        super().__init__(width=300)
        self.desk = desk
        self.controller = desk.controller
        self.recovery = RecoveryRow(desk)
        self.image = ImageSection(desk)
        self.tools = PromptTools(desk.controller)
        self.progress = ProgressSection(desk.controller)
        self.objects = ObjectSection(desk)
        self.export = ExportSection(desk)
        self.cache = CacheSection(desk)
        self.show_parts(
            self.recovery, self.image, self.tools, self.progress, self.objects, self.export, self.cache
        )
        self._hold = CanvasHold(self)
        self.controller.requested.connect(self._hold.begin)
        self.controller.painted.connect(lambda _: self._hold.release())
        self.export.retrain.clicked.connect(lambda: open_retrain(desk))
        QTimer.singleShot(FIRST_WORK_MS, self._start)
        self.destroyed.connect(partial(_close, desk))

    def close_session(self) -> None:
        """End the desk; called when the dock is closed, and safe to call before."""
        if not self.closed:
            super().close_session()
            self._hold.release()
            self.desk.close()

    def _start(self) -> None:
        if not self.closed:
            self.controller.start()
            self.image.layer.reset_choices()


def _close(desk: Desk, *_: object) -> None:
    desk.close()
