"""The journals of a viewer's images, and what earlier sessions left in theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QObject

from napari_medsam.errors import MedSAMError
from napari_medsam.journal.recovery import Recovered, UnsavedJournal
from napari_medsam.layers.restore import put_back
from napari_medsam.ui.desk.journal import WorkJournal
from napari_medsam.ui.desk.journal_thread import JournalThread

if TYPE_CHECKING:
    from napari_medsam.curation.snapshot import PlaneSnapshot
    from napari_medsam.document.objects import PartKey
    from napari_medsam.layers.work import Work
    from napari_medsam.ui.desk.controller import Controller
    from napari_medsam.ui.qt.bridge import MainThread


class Journals(QObject):  # type: ignore[misc]
    """Keeps a journal for each image at work of one controller, and restores those of earlier sessions.

    ``recoverable_changed()`` is emitted when there is more or less to restore. All methods belong to the main thread.
    """

    recoverable_changed = Signal()

    def __init__(self, controller: Controller, main: MainThread) -> None:
        super().__init__()
        self._controller = controller
        self._journals: list[WorkJournal] = []
        self._thread = JournalThread(main)
        self._thread.warning.connect(partial(controller.notify, warn=True))
        controller.work_opened.connect(self._begin)
        controller.work_closing.connect(self._end)

    def close(self) -> None:
        """Write what is still to be written, and end."""
        for journal in self._journals:
            journal.close()
        self._journals.clear()
        self._thread.close()

    def exporting(self, taken: Iterable[PlaneSnapshot]) -> Callable[[], None]:
        """An export begins of what is here now: call what this returns once it is done."""
        parts = [part for entry in taken for part in entry.parts]
        done = [journal.exporting(parts) for journal in self._journals]

        def finish() -> None:
            for saved in done:
                saved()

        return finish

    def _begin(self, work: Work) -> None:
        journal = WorkJournal(work, self._thread)
        journal.recoverable_changed.connect(lambda: self.recoverable_changed.emit())
        self._journals.append(journal)

    def _end(self, work: Work) -> None:
        """What is not exported of an image that is closed is offered when it is opened again."""
        for journal in [journal for journal in self._journals if journal.work is work]:
            self._journals.remove(journal)
            journal.close()
            self.recoverable_changed.emit()

    # what an earlier session left ---------------------------------------------------------------------------

    def recoverable(self, work: Work | None) -> UnsavedJournal | None:
        """The latest journal that an earlier session left of an image; None when there is none."""
        found = (journal.recoverable for journal in self._journals if journal.work is work)
        return next((left[0] for left in found if left), None)

    def restore(self, work: Work) -> None:
        """Bring back what the recoverable journal holds; its file is read in the background."""
        unsaved = self._take(work)
        if unsaved is not None:
            done = self._thread.submit(unsaved.read)
            done.add_done_callback(
                lambda read: self._thread.post(partial(self._put_back, work, unsaved, read))
            )

    def discard(self, work: Work) -> None:
        """Delete the recoverable journal."""
        unsaved = self._take(work)
        if unsaved is not None:
            self._thread.submit(unsaved.remove)

    def _take(self, work: Work) -> UnsavedJournal | None:
        unsaved = self.recoverable(work)
        if unsaved is not None:
            self._journal_of(work).recoverable.remove(unsaved)
            self.recoverable_changed.emit()
        return unsaved

    def _put_back(self, work: Work, unsaved: UnsavedJournal, read: Future[Recovered]) -> None:
        error = read.exception()
        if error is None and work in self._controller.works:
            found = read.result()
            try:
                work = self._controller.work_with_channels(work, found.header.channel_axis)
                restored = put_back(work, found)
            except MedSAMError as problem:
                error = problem
            else:
                self._controller.notify(restored.text)
                self._remove_once_written(unsaved, self._journal_of(work), restored.exported)
                return
        self._thread.submit(unsaved.leave)
        if error is not None:
            self._controller.notify(
                f"{work.image.name}: the unsaved work cannot be restored ({error}).", warn=True
            )

    def _remove_once_written(
        self, unsaved: UnsavedJournal, journal: WorkJournal, exported: tuple[PartKey, ...]
    ) -> None:
        """Once all of it stands in the image's own journal, the one it came from goes."""
        journal.restored(exported)
        self._thread.submit(lambda: unsaved.leave() if journal.failed else unsaved.remove())

    def _journal_of(self, work: Work) -> WorkJournal:
        return next(journal for journal in self._journals if journal.work is work)
