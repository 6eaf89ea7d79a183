"""The journals of a viewer's images: one thread that writes them all, and what was left of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from psygnal import Signal
from qtpy.QtCore import QObject

from napari_medsam.errors import MedSAMError
from napari_medsam.journal.recovery import Leftover, Recovered, prune
from napari_medsam.journal.writer import journal_folder
from napari_medsam.layers.restore import put_back
from napari_medsam.ui.desk.journal import WorkJournal

if TYPE_CHECKING:
    from napari_medsam.curation.snapshot import PlaneSnapshot
    from napari_medsam.layers.work import Work
    from napari_medsam.ui.desk.controller import Controller

Result = TypeVar("Result")


class Journals(QObject):  # type: ignore[misc]
    """Keeps a journal for each image at work of one controller, and offers those that were left of them.

    ``offered()`` is emitted when what is offered for an image has changed. All methods belong to the main thread.
    """

    offered = Signal()

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self.folder = journal_folder()
        self._controller = controller
        self._kept: list[WorkJournal] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medsam-journal")
        self._said: set[str] = set()
        self._thread.submit(prune, self.folder)

    def begin(self, work: Work) -> None:
        """Keep a journal of an image, and look for one that was left."""
        self._kept.append(WorkJournal(work, self))

    def end(self, work: Work) -> None:
        """An image is no longer at work: what is not exported of it is offered when it is opened again."""
        for kept in [kept for kept in self._kept if kept.work is work]:
            self._kept.remove(kept)
            kept.close()
            self.offered.emit()

    def close(self) -> None:
        """Write what is still to be written, and end."""
        for kept in self._kept:
            kept.close()
        self._kept.clear()
        self._thread.shutdown(wait=True)

    def exporting(self, taken: Iterable[PlaneSnapshot]) -> Callable[[], None]:
        """An export begins of what is here now: call what this gives once it is done."""
        records = [record for entry in taken for record in entry.records]
        done = [kept.exporting(records) for kept in self._kept]

        def finish() -> None:
            for saved in done:
                saved()

        return finish

    # what was left ------------------------------------------------------------------------------------------

    def offer(self, work: Work | None) -> Leftover | None:
        """The latest journal that was left of an image; None when there is none."""
        return next((kept.leftovers[0] for kept in self._kept if kept.work is work and kept.leftovers), None)

    def restore(self, work: Work) -> None:
        """Bring back what the journal on offer holds; its file is read in the background."""
        leftover = self._take(work)
        if leftover is not None:
            done = self.later(leftover.read)
            done.add_done_callback(partial(self._on_read, work, leftover))

    def discard(self, work: Work) -> None:
        """Delete the journal on offer."""
        leftover = self._take(work)
        if leftover is not None:
            self.later(leftover.remove)

    def _take(self, work: Work) -> Leftover | None:
        for kept in self._kept:
            if kept.work is work and kept.leftovers:
                leftover = kept.leftovers.pop(0)
                self.offered.emit()
                return leftover
        return None

    def _on_read(self, work: Work, leftover: Leftover, done: Future[Recovered]) -> None:
        self._controller.post(partial(self._put_back, work, leftover, done))

    def _put_back(self, work: Work, leftover: Leftover, done: Future[Recovered]) -> None:
        error = done.exception()
        if error is None and work in self._controller.works:
            found = done.result()
            try:
                work = self._on_its_axes(work, found.header.channel_axis)
                restored = put_back(work, found)
            except MedSAMError as problem:
                error = problem
            else:
                self._controller.say(restored.text)
                self._written_then(work, restored.exported, leftover)
                return
        self.later(leftover.leave)
        if error is not None:
            self._controller.say(
                f"{work.image.name}: what was not exported cannot be restored ({error}).", warn=True
            )

    def _on_its_axes(self, work: Work, channel_axis: int | None) -> Work:
        """The work of the same image with the channel axis that its objects were made with."""
        if work.axes.channel == channel_axis:
            return work
        self._controller.set_image(work.image)
        self._controller.set_channel_axis(channel_axis)
        assert self._controller.work is not None
        return self._controller.work

    def _written_then(self, work: Work, exported: tuple[int, ...], leftover: Leftover) -> None:
        """Once all of it stands in the image's own journal, the one it came from goes."""
        [kept] = [kept for kept in self._kept if kept.work is work]
        kept.restored(exported)
        self.later(lambda: leftover.leave() if kept.failed else leftover.remove())

    # for the journals ---------------------------------------------------------------------------------------

    def later(self, work: Callable[[], Result]) -> Future[Result]:
        """Do something in the journals' thread, after all that was asked before."""
        return self._thread.submit(work)

    def post(self, function: Callable[[], None]) -> None:
        self._controller.post(function)

    def warn(self, text: str) -> None:
        """Say that something is not kept; the same thing once."""
        if text not in self._said:
            self._said.add(text)
            self._controller.say(text, warn=True)
