"""What one window owns: the controller, the journals, the decoders, a training run and the export of cases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from qtpy.QtCore import QObject, Signal

from napari_medsam.errors import MedSAMError
from napari_medsam.finetune.run import TrainingProcess
from napari_medsam.model.remote import start_model
from napari_medsam.session.session import Session
from napari_medsam.ui.desk.controller import Controller
from napari_medsam.ui.desk.decoders import Decoders
from napari_medsam.ui.desk.journals import Journals
from napari_medsam.ui.desk.training import Begin, TrainingRun
from napari_medsam.ui.qt.bridge import MainThread

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.finetune.request import TrainingRequest
    from napari_medsam.finetune.run_state import RunState
    from napari_medsam.model.holder import Loader
    from napari_medsam.session.settings import Settings

Result = TypeVar("Result")


class Desk(QObject):  # type: ignore[misc]
    """The work of one viewer; the dock and the Retrain panel are views of it.

    ``folder`` is the dataset that cases are exported to. Signals: ``folder_changed(Path)``, ``exporting(bool)`` when
    an export begins and ends, ``exported(Path)`` after cases were written, ``closing()`` before the work ends.
    """

    folder_changed = Signal(object)
    exporting = Signal(bool)
    exported = Signal(object)
    closing = Signal()

    def __init__(
        self,
        viewer: Viewer,
        *,
        settings: Settings | None = None,
        cache: EmbeddingCache | None = None,
        load: Loader | None = None,
        begin: Begin = TrainingProcess,
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self._main = MainThread(self)
        session = Session(settings, cache=cache, post=self._main.post, load=load or start_model)
        self.controller = Controller(viewer, session, self._main)
        self.journals = Journals(self.controller, self._main)
        self.decoders = Decoders(self.controller)
        self.training = TrainingRun(begin)
        self.training.ended.connect(self._on_trained)
        self._folder = Path.home() / "medsam-dataset"
        self._io = ThreadPoolExecutor(1, thread_name_prefix="medsam-export")
        self.closed = False

    @property
    def folder(self) -> Path:
        return self._folder

    @folder.setter
    def folder(self, folder: Path) -> None:
        if folder != self._folder:
            self._folder = folder
            self.folder_changed.emit(folder)

    def close(self) -> None:
        """End all work; an export that has begun is finished first. Closing twice is safe."""
        if self.closed:
            return
        self.closed = True
        self.closing.emit()
        self.training.close()
        self._io.shutdown(wait=True)
        self.journals.close()
        self._main.close()
        self.controller.close()

    def export(self, folder: Path | None = None, *, corrected: bool = False) -> Future[list[Path]] | None:
        """Write every plane with masks as a case, in the background; None if there is nothing to write.

        corrected: only planes with a corrected object, but of every image at work.
        """
        controller, target = self.controller, folder or self.folder
        if controller.work is None:
            controller.notify("Open an image and draw a box first.")
            return None
        # They pull in the curation room: not before it is needed.
        from napari_medsam.curation.snapshot import write
        from napari_medsam.layers.snapshot import corrected_planes, snapshot

        session = controller.session
        try:
            taken = (
                corrected_planes(controller.works, session)
                if corrected
                else snapshot(controller.work, session)
            )
        except MedSAMError as error:
            controller.notify(str(error))
            return None
        self.exporting.emit(True)
        saved = self.journals.exporting(taken)
        return self.in_background(partial(write, target, taken), partial(self._on_exported, target, saved))

    def in_background(
        self, work: Callable[[], Result], then: Callable[[Future[Result]], None]
    ) -> Future[Result]:
        """Do something that takes time, after what was submitted before; then call `then` in the main thread."""
        done = self._io.submit(work)
        done.add_done_callback(lambda future: self._main.post(partial(then, future)))
        return done

    def _on_exported(self, target: Path, saved: Callable[[], None], done: Future[list[Path]]) -> None:
        self.exporting.emit(False)
        error = done.exception()
        if error is not None:
            self.controller.notify(f"Export to {target} failed: {error}", warn=True)
            return
        saved()
        self.exported.emit(target)
        count = len(done.result())
        self.controller.notify(f"{count} case{'s' if count != 1 else ''} in {target}.")

    def _on_trained(self, request: TrainingRequest, view: RunState) -> None:
        message = self.decoders.on_trained(request, view)
        self.controller.notify(message, warn=view.state == "failed")
