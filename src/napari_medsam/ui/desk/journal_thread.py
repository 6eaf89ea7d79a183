"""The one thread that reads and writes the journals of a viewer's images."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from psygnal import Signal
from qtpy.QtCore import QObject

from napari_medsam.folders import journal_folder
from napari_medsam.journal.recovery import prune
from napari_medsam.ui.qt.bridge import MainThread

Result = TypeVar("Result")


class JournalThread(QObject):  # type: ignore[misc]
    """Does work on journal files in the order it was submitted; `post` runs a function in the main thread.

    ``warning(str)`` is emitted in the main thread when work is not kept safe; the same text only once.
    """

    warning = Signal(str)

    def __init__(self, main: MainThread) -> None:
        super().__init__()
        self.folder = journal_folder()
        self.post = main.post
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="medsam-journal")
        self._warned: set[str] = set()
        self.submit(partial(prune, self.folder))

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Do something in this thread, after everything submitted before."""
        return self._executor.submit(work)

    def warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.warning.emit(text)

    def close(self) -> None:
        """Finish what was submitted, and end."""
        self._executor.shutdown(wait=True)
