"""The dock's row that offers the unsaved work of an earlier session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout

from napari_medsam.ui.qt.bridge import single_shot
from napari_medsam.ui.qt.build import button, hbox

if TYPE_CHECKING:
    from napari_medsam.journal.recovery import UnsavedJournal
    from napari_medsam.ui.desk.desk import Desk

CONFIRM_MS = 5000
DISCARD, CONFIRM = "Discard", "Really discard"


class RecoveryRow(QFrame):  # type: ignore[misc]
    """How many objects were not exported, with buttons to restore or to discard them; hidden when there are none.

    Discard needs a second press within five seconds: it cannot be undone.
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._shown: UnsavedJournal | None = None
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.restore = button("Restore", "Bring back boxes, clicks, classes and masks as they were")
        self.discard = button(DISCARD, "Delete them for good")
        column = QVBoxLayout(self)
        column.addWidget(self.text)
        column.addLayout(hbox(self.restore, self.discard))
        self._timer = single_shot(self, self._reset_discard)
        self.restore.clicked.connect(self._on_restore)
        self.discard.clicked.connect(self._on_discard)
        desk.journals.recoverable_changed.connect(self._refresh)
        desk.controller.work_changed.connect(self._refresh)
        self._refresh()

    def _refresh(self, *_: object) -> None:
        unsaved = self._desk.journals.recoverable(self._desk.controller.work)
        if unsaved is not self._shown:
            self._reset_discard()
        self._shown = unsaved
        if unsaved is not None:
            self.text.setText(describe(unsaved.unsaved, unsaved.objects, unsaved.when))
        self.setVisible(unsaved is not None)

    def _on_restore(self) -> None:
        if self._desk.controller.work is not None:
            self._desk.journals.restore(self._desk.controller.work)

    def _on_discard(self) -> None:
        if self.discard.text() == DISCARD:
            self.discard.setText(CONFIRM)
            self._timer.start(CONFIRM_MS)
        elif self._desk.controller.work is not None:
            self._desk.journals.discard(self._desk.controller.work)

    def _reset_discard(self) -> None:
        self._timer.stop()
        self.discard.setText(DISCARD)


def describe(unsaved: int, objects: int, when: float) -> str:
    """One sentence about unsaved work: how many of how many objects, from when (seconds since the epoch)."""
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
