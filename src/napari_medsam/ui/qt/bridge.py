"""Small Qt mechanisms that several parts share: the way back into the main thread, timers, widgets that leave."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QWidget


class MainThread(QObject):  # type: ignore[misc]
    """Runs functions in the thread that made it, in the order in which they were posted.

    >>> post = MainThread().post
    >>> post(lambda: label.setText("done"))  # from any thread; returns at once
    """

    _posted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._posted.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def post(self, function: Callable[[], None]) -> None:
        self._posted.emit(function)

    def _run(self, function: Callable[[], None]) -> None:
        function()


def single_shot(parent: QObject, call: Callable[[], None]) -> QTimer:
    """A timer that calls once each time it is started."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(call)
    return timer


def is_taken_out(widget: QWidget, event: QEvent | None) -> bool:
    """Whether a change event says that napari took a dock widget out of its window, as when the user closes it."""
    return event is not None and event.type() == QEvent.Type.ParentChange and widget.parent() is None
