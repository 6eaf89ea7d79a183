"""The way back from worker threads into the Qt main thread."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, Signal


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
