"""The Retrain panel: cases, a training run, its verdict, the decoders. It shows and asks; the dock's parts decide."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from magicgui.widgets import FileEdit
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_medsam.curation.summary import Overview, look_at
from napari_medsam.errors import MedSAMError
from napari_medsam.finetune.request import request_of
from napari_medsam.finetune.run_state import RunView
from napari_medsam.ui.qt.bridge import is_taken_out, single_shot
from napari_medsam.ui.retrain.decoders import DecoderList
from napari_medsam.ui.retrain.plot import CurvePlot
from napari_medsam.ui.retrain.settings import TrainingSettings
from napari_medsam.ui.retrain.verdict import VerdictView

if TYPE_CHECKING:
    from napari_medsam.model.library import OwnDecoder
    from napari_medsam.ui.dock.dock import MedSAMDock

LOOK_MS = 200


class RetrainPanel(QScrollArea):  # type: ignore[misc]
    """Trains the decoder on a folder of cases, beside the MedSAM dock of the same viewer.

    Without a dock it takes the viewer's, or opens one. The run, the decoders and the export belong to the dock: a
    panel may be closed and opened again while a run goes on.
    """

    def __init__(self, viewer: napari.viewer.Viewer, dock: MedSAMDock | None = None) -> None:
        super().__init__()
        self.viewer = viewer
        self.dock = dock or _dock_of(viewer)
        self.training, self.decoders = self.dock.training, self.dock.decoders
        self._closed = False
        self._judged: tuple[bool, Path | None] | None = None  # of which run the verdict is shown
        self._make_parts()
        self._lay_out()
        self._look_timer = single_shot(self, self._look)
        self._connect()
        self._show_run(self.training.view)
        self._show_back()
        self._show_unfinished()
        self._look_soon()

    def changeEvent(self, event: QEvent | None) -> None:
        """A panel that the user closes is done with; the run goes on."""
        super().changeEvent(event)
        if is_taken_out(self, event) and not getattr(self, "_closed", True):
            self._closed = True
            self._look_timer.stop()
            self.deleteLater()

    # the parts ----------------------------------------------------------------------------------------------

    def _make_parts(self) -> None:
        self.folder = FileEdit(mode="d", value=Path(self.dock.dataset.value))
        self.overview = QLabel()
        self.overview.setWordWrap(True)
        self.add = QPushButton("Add corrected planes")
        self.add.setToolTip(
            "Write the planes of the open images on which you corrected a mask into this folder"
        )
        self.settings = TrainingSettings(self.dock.controller.session.settings.detail)
        self.with_open = QCheckBox("Add corrected planes first")
        self.with_open.setChecked(True)
        self.start, self.stop = QPushButton("Start"), QPushButton("Stop")
        self.stop.setToolTip("End the run and keep the best decoder so far, without a verdict")
        self.unfinished = QComboBox()
        self.unfinished.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.unfinished.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.resume, self.discard = QPushButton("Resume"), QPushButton("Discard")
        self.resume.setToolTip("Go on with a run that was cut off, from its last whole epoch")
        self.progress = QProgressBar()
        self.line, self.device = QLabel(), QLabel()
        for label in (self.line, self.device):
            label.setWordWrap(True)
        self.plot = CurvePlot()
        self.verdict = VerdictView()
        self.use_anyway, self.back = QPushButton("Use anyway"), QPushButton()
        self.list = DecoderList(self.decoders)

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        self.interrupted = QWidget()
        unfinished = _row(self.unfinished, self.resume, self.discard)
        self.interrupted.setLayout(unfinished)
        column.addWidget(_box("Cases", self.folder.native, self.overview, self.add))
        column.addWidget(
            _box("Training", self.settings, self.with_open, _row(self.start, self.stop), self.interrupted)
        )
        column.addWidget(_box("Run", self.progress, self.line, self.device, self.plot))
        column.addWidget(_box("Verdict", self.verdict, _row(self.use_anyway, self.back)))
        column.addWidget(_box("Your decoders", self.list))
        column.addStretch()
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setMinimumWidth(380)

    def _connect(self) -> None:
        self.dock.dataset.changed.connect(self._follow_folder)
        self.folder.changed.connect(self._look_soon)
        self.settings.split_changed.connect(self._look_soon)
        self.dock.exported.connect(self._look_soon)
        self.dock.closing.connect(self._leave)
        self.add.clicked.connect(lambda: self.add_corrected())
        self.start.clicked.connect(self.begin)
        self.stop.clicked.connect(self.training.stop)
        self.resume.clicked.connect(self._resume)
        self.discard.clicked.connect(self._discard)
        self.training.changed.connect(self._show_run)
        self.training.ended.connect(self._on_ended)
        self.decoders.changed.connect(self._show_back)
        self.decoders.switched.connect(self._show_back)
        self.use_anyway.clicked.connect(lambda: self.decoders.use(self.training.view.name))
        self.back.clicked.connect(self.decoders.back)
        self.list.chosen.connect(self._show_decoder)
        self.list.failed.connect(self._complain)

    # what the user does -------------------------------------------------------------------------------------

    def add_corrected(self) -> Future[list[Path]] | None:
        """Write the corrected planes of the open images into the folder; None when there are none, which is said."""
        return self.dock.export_cases(Path(self.folder.value), corrected=True)

    def begin(self) -> None:
        """Start a run, once the corrected planes are in the folder where that is wanted."""
        if self.training.running:
            return
        self.start.setEnabled(False)
        written = self.add_corrected() if self.with_open.isChecked() and self._has_corrected() else None
        if written is None:
            self._begin_now()
        else:
            self.dock.in_background(written.result, self._begin_after)

    def _begin_after(self, written: Future[list[Path]]) -> None:
        if written.exception() is None:
            self._begin_now()
        elif not self._closed:  # the dock has said why: nothing is trained without what was to be learned
            self._show_run(self.training.view)

    def _begin_now(self) -> None:
        if self._closed or self.training.running:
            return
        settings = self.dock.controller.session.settings
        try:
            request = self.settings.request(Path(self.folder.value), settings.model, settings.device)
            self.training.start(request)
        except (MedSAMError, OSError) as error:
            self._complain(str(error))
        self._show_run(self.training.view)

    def _has_corrected(self) -> bool:
        return any(record.corrected for work in self.dock.controller.works for record in work.document)

    def _resume(self) -> None:
        folder = self.unfinished.currentData()
        if folder is None or self.training.running:
            return
        try:
            self.training.resume(folder)
        except (MedSAMError, OSError) as error:
            self._complain(str(error))
        self._show_unfinished()

    def _discard(self) -> None:
        folder = self.unfinished.currentData()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            self._show_unfinished()

    def _complain(self, text: str) -> None:
        self.dock.controller.say(text, warn=True)

    # what is shown ------------------------------------------------------------------------------------------

    def _follow_folder(self, folder: Any) -> None:
        if not self._closed:
            self.folder.value = folder

    def _look_soon(self, *_: object) -> None:
        if not self._closed:
            self._look_timer.start(LOOK_MS)

    def _look(self) -> None:
        """Count the cases, in the dock's own thread."""
        folder = Path(self.folder.value)
        self.settings.name.setPlaceholderText(folder.name or "decoder")
        look = partial(look_at, folder, self.settings.seed.value(), self.settings.split)
        self.dock.in_background(look, partial(self._looked, folder))

    def _looked(self, folder: Path, done: Future[Overview]) -> None:
        if self._closed or folder != Path(self.folder.value):
            return
        error = done.exception()
        self.overview.setText(str(error) if error is not None else "\n".join(done.result().lines))

    def _show_run(self, view: RunView) -> None:
        running = self.training.running
        self.start.setEnabled(not running)
        self.resume.setEnabled(not running)
        self.stop.setEnabled(running and not view.stopping)
        self.progress.setVisible(running)
        self.progress.setRange(0, view.of)  # 0: busy, nobody knows how long
        self.progress.setValue(view.done)
        known = running or view.ended
        self.line.setText(view.line if known else "No run yet.")
        self.device.setText(_about(view))
        self.device.setVisible(bool(view.device))
        self.plot.show_curve(view.curve, view.epochs, view.best)
        self.plot.setVisible(known)
        if known and (view.ended, self.training.folder) != self._judged:
            self._judged = view.ended, self.training.folder
            self.verdict.show_verdict(view.verdict, self.training.folder, _no_verdict(view))
            self._show_back()

    def _on_ended(self, _request: object, view: RunView) -> None:
        self._show_unfinished()
        self._look_soon()
        if view.decoder is not None:
            self.list.select(view.name)

    def _show_decoder(self, decoder: OwnDecoder) -> None:
        """Show the verdict that a decoder's file holds; there are pictures of the last run's only."""
        view = self.training.view
        if view.decoder == decoder.path:
            self.verdict.show_verdict(view.verdict, self.training.folder, _no_verdict(view))
        else:
            self.verdict.show_verdict(decoder.info.verdict, None, f"{decoder.name} was not judged.")

    def _show_back(self, *_: object) -> None:
        previous, view = self.decoders.previous, self.training.view
        self.back.setText(f"Back to {previous}" if previous else "Back")
        self.back.setEnabled(previous is not None)
        self.use_anyway.setVisible(
            view.decoder is not None and not view.adopted and self.decoders.in_use != view.name
        )

    def _show_unfinished(self) -> None:
        self.unfinished.clear()
        for folder in self.training.unfinished():
            try:
                name = request_of(folder).name
            except MedSAMError:
                name = "unreadable"
            begun = datetime.fromtimestamp(folder.stat().st_mtime)
            self.unfinished.addItem(f"{name}, {begun:%d %b %H:%M}", folder)
        self.interrupted.setVisible(self.unfinished.count() > 0)

    def _leave(self) -> None:
        """The dock ends, and all that the panel shows with it."""
        if not self._closed:
            QTimer.singleShot(
                0, partial(_remove, self.viewer, self)
            )  # not while the dock itself is taken out


def open_panel(dock: MedSAMDock) -> RetrainPanel:
    """Show the panel of a dock, as a tab of the same place; one that is open already comes to the front."""
    window = dock.viewer.window
    found = [widget for widget in window.dock_widgets.values() if isinstance(widget, RetrainPanel)]
    panel = found[0] if found else RetrainPanel(dock.viewer, dock)
    if not found:
        window.add_dock_widget(panel, name="Retrain", area="right", tabify=True)
    holder: Any = panel.parent()
    holder.show()
    holder.raise_()
    return panel


def _dock_of(viewer: napari.viewer.Viewer) -> MedSAMDock:
    from napari_medsam.ui.dock.dock import MedSAMDock
    from napari_medsam.ui.launch import add_dock

    found = [widget for widget in viewer.window.dock_widgets.values() if isinstance(widget, MedSAMDock)]
    return found[0] if found else add_dock(viewer)


def _remove(viewer: napari.viewer.Viewer, panel: RetrainPanel) -> None:
    with suppress(RuntimeError):  # the whole window has been deleted meanwhile
        if panel in viewer.window.dock_widgets.values():
            viewer.window.remove_dock_widget(panel)


def _about(view: RunView) -> str:
    if not view.device:
        return ""
    sides = view.split or {}
    return (
        f"{view.cases} cases, {view.objects} objects; {sides.get('train', 0)} cases train, "
        f"{sides.get('val', 0)} validate, {sides.get('test', 0)} judge; on {view.device}"
    )


def _no_verdict(view: RunView) -> str:
    if view.state == "stopped" and view.decoder is not None:
        return f"{view.name} was stopped before it was judged."
    return "" if view.ended else "A verdict comes when the run ends."


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)
    return row


def _box(title: str, *parts: QWidget | QHBoxLayout) -> QGroupBox:
    box = QGroupBox(title)
    column = QVBoxLayout(box)
    for part in parts:
        column.addLayout(part) if isinstance(part, QHBoxLayout) else column.addWidget(part)
    return box
