"""Running something in the main thread: posted from another thread, or after a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject, Qt, QTimer, Signal


class MainThread(QObject):  # type: ignore[misc]
    """Runs functions in the thread that made it, in the order in which they were posted.

    >>> post = MainThread().post
    >>> post(lambda: label.setText("done"))  # from any thread; returns at once

    After `close` nothing is run any more, not even what was posted before.
    """

    _posted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._closed = False
        self._posted.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def post(self, function: Callable[[], None]) -> None:
        self._posted.emit(function)

    def later(self, function: Callable[[], object], seconds: float = 0.0) -> None:
        """Run a function once the event loop is back, or so many seconds later; call this in the main thread."""
        QTimer.singleShot(round(seconds * 1000), partial(self._run, function))

    def close(self) -> None:
        self._closed = True

    def _run(self, function: Callable[[], object]) -> None:
        if not self._closed:
            function()


def single_shot(parent: QObject, call: Callable[[], None]) -> QTimer:
    """A timer that calls once each time it is started."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(call)
    return timer
