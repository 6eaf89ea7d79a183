"""The dock's row that offers what an earlier session left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_medsam.journal.recovery import Leftover
    from napari_medsam.ui.desk.controller import Controller

SURE_MS = 5000
DISCARD, SURE = "Discard", "Really discard"


class LeftoverRow(QFrame):  # type: ignore[misc]
    """Says how many objects were not exported, with buttons to restore or to discard them; hidden when there are none.

    Discard wants a second press within five seconds: there is no way back from it.
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._shown: Leftover | None = None
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.restore = QPushButton("Restore")
        self.restore.setToolTip("Bring back boxes, clicks, classes and masks as they were")
        self.discard = QPushButton(DISCARD)
        self.discard.setToolTip("Delete them for good")
        buttons = QHBoxLayout()
        buttons.addWidget(self.restore)
        buttons.addWidget(self.discard)
        column = QVBoxLayout(self)
        column.addWidget(self.text)
        column.addLayout(buttons)
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.timeout.connect(self._calm_down)
        self.restore.clicked.connect(self._restore)
        self.discard.clicked.connect(self._discard)
        controller.journals.offered.connect(self._look)
        controller.work_changed.connect(self._look)
        self._look()

    def _look(self, *_: object) -> None:
        leftover = self._controller.journals.offer(self._controller.work)
        if leftover is not self._shown:
            self._calm_down()
        self._shown = leftover
        if leftover is not None:
            self.text.setText(describe(leftover.unsaved, leftover.objects, leftover.when))
        self.setVisible(leftover is not None)

    def _restore(self) -> None:
        if self._controller.work is not None:
            self._controller.journals.restore(self._controller.work)

    def _discard(self) -> None:
        if self.discard.text() == DISCARD:
            self.discard.setText(SURE)
            self._calm.start(SURE_MS)
        elif self._controller.work is not None:
            self._controller.journals.discard(self._controller.work)

    def _calm_down(self) -> None:
        self._calm.stop()
        self.discard.setText(DISCARD)


def describe(unsaved: int, objects: int, when: float) -> str:
    """One sentence about what was left: how many of how many objects, from when (seconds since the epoch)."""
    many = f"{unsaved} of {objects} objects" if unsaved < objects else f"{objects} object{_s(objects)}"
    verb = "was" if unsaved == 1 else "were"
    return f"{many} from {_date(when)} {verb} not exported."


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _date(when: float, now: float | None = None) -> str:
    then, today = time.localtime(when), time.localtime(now)
    clock = time.strftime("%H:%M", then)
    if then[:3] == today[:3]:
        return f"today, {clock},"
    return f"{then.tm_mday} {time.strftime('%B %Y', then)}, {clock},"
