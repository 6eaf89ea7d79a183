"""The Retrain panel: cases, a training run, its verdict, the decoders. A view of the desk, which does the work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import FileEdit
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGroupBox,
    QLabel,
    QLayout,
    QProgressBar,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_medsam.curation.summary import Overview, look_at
from napari_medsam.errors import MedSAMError
from napari_medsam.finetune.request import request_of
from napari_medsam.finetune.run_state import RunState
from napari_medsam.ui.qt.bridge import single_shot
from napari_medsam.ui.qt.build import Part, button, hbox
from napari_medsam.ui.qt.panel import Panel
from napari_medsam.ui.retrain.decoders import DecoderList
from napari_medsam.ui.retrain.plot import CurvePlot
from napari_medsam.ui.retrain.settings import TrainingSettings
from napari_medsam.ui.retrain.verdict import VerdictView

if TYPE_CHECKING:
    from napari_medsam.model.library import OwnDecoder
    from napari_medsam.ui.desk.desk import Desk

SUMMARY_MS = 200


class RetrainPanel(Panel):
    """Trains the decoder on a folder of cases. It may be closed and opened again while a run goes on."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(width=380)
        self.desk = desk
        self.training, self.decoders = desk.training, desk.decoders
        self._verdict_of: tuple[bool, Path | None] | None = None  # the run whose verdict is shown
        self._make_parts()
        self._lay_out()
        self._summary_timer = single_shot(self, self._summarize)
        self._connect()
        self._show_run(self.training.view)
        self._show_back()
        self._show_unfinished()
        self._summarize_soon()

    def close_session(self) -> None:
        """Stop updating; the run goes on."""
        super().close_session()
        self._summary_timer.stop()

    # the parts ----------------------------------------------------------------------------------------------

    def _make_parts(self) -> None:
        self.folder = FileEdit(mode="d", value=self.desk.folder)
        self.summary, self.line, self.device = QLabel(), QLabel(), QLabel()
        for label in (self.summary, self.line, self.device):
            label.setWordWrap(True)
        self.add = button(
            "Add corrected planes",
            "Write the planes with a corrected mask, of all open images, into this folder",
        )
        self.settings = TrainingSettings(self.desk.controller.session.settings.detail)
        self.with_open = QCheckBox("Add corrected planes first")
        self.with_open.setChecked(True)
        self.start = button("Start")
        self.stop = button("Stop", "End the run and keep the best decoder so far, without a verdict")
        self.unfinished = QComboBox()
        self.unfinished.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.unfinished.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.resume = button("Resume", "Continue an interrupted run from its last complete epoch")
        self.discard = button("Discard")
        self.progress = QProgressBar()
        self.plot = CurvePlot()
        self.verdict = VerdictView()
        self.use_anyway, self.back = button("Use anyway"), button("")
        self.list = DecoderList(self.decoders)

    def _lay_out(self) -> None:
        self.interrupted = QWidget()
        hbox(self.unfinished, self.resume, self.discard, within=self.interrupted)
        buttons = hbox(self.start, self.stop)
        self.show_parts(
            _box("Cases", self.folder.native, self.summary, self.add),
            _box("Training", self.settings, self.with_open, buttons, self.interrupted),
            _box("Run", self.progress, self.line, self.device, self.plot),
            _box("Verdict", self.verdict, hbox(self.use_anyway, self.back)),
            _box("Your decoders", self.list),
        )

    def _connect(self) -> None:
        self.desk.folder_changed.connect(self._on_folder)
        self.desk.exported.connect(self._summarize_soon)
        self.desk.closing.connect(self._on_closing)
        self.folder.changed.connect(self._summarize_soon)
        self.settings.split_changed.connect(self._summarize_soon)
        self.add.clicked.connect(lambda: self._add_corrected())
        self.start.clicked.connect(self._on_start)
        self.stop.clicked.connect(self.training.stop)
        self.resume.clicked.connect(self._on_resume)
        self.discard.clicked.connect(self._on_discard)
        self.training.changed.connect(self._show_run)
        self.training.ended.connect(self._on_ended)
        self.decoders.changed.connect(self._show_back)
        self.decoders.switched.connect(self._show_back)
        self.use_anyway.clicked.connect(lambda: self.decoders.use(self.training.view.name))
        self.back.clicked.connect(self.decoders.back)
        self.list.chosen.connect(self._show_decoder)
        self.list.failed.connect(self._warn)

    # what the user does -------------------------------------------------------------------------------------

    def _add_corrected(self) -> Future[list[Path]] | None:
        """Write the corrected planes of the open images into the folder; None if there are none."""
        return self.desk.export(Path(self.folder.value), corrected=True)

    def _on_start(self) -> None:
        """Start a run, once the corrected planes are in the folder where that is wanted."""
        if self.training.running:
            return
        self.start.setEnabled(False)
        written = self._add_corrected() if self.with_open.isChecked() and self._has_corrected() else None
        if written is None:
            self._begin()
        else:
            self.desk.in_background(written.result, self._on_written)

    def _on_written(self, written: Future[list[Path]]) -> None:
        if written.exception() is None:
            self._begin()
        elif not self.closed:  # the desk has reported it; without the new cases nothing is trained
            self._show_run(self.training.view)

    def _begin(self) -> None:
        settings = self.desk.controller.session.settings
        dataset = Path(self.folder.value)
        self._try(
            lambda: self.training.start(self.settings.request(dataset, settings.model, settings.device))
        )

    def _try(self, start: Callable[[], None]) -> None:
        if not self.closed and not self.training.running:
            try:
                start()
            except (MedSAMError, OSError) as error:
                self._warn(str(error))
            self._show_run(self.training.view)

    def _has_corrected(self) -> bool:
        return any(record.corrected for work in self.desk.controller.works for record in work.document)

    def _on_resume(self) -> None:
        folder = self.unfinished.currentData()
        if folder is not None:
            self._try(lambda: self.training.resume(folder))
            self._show_unfinished()

    def _on_discard(self) -> None:
        folder = self.unfinished.currentData()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            self._show_unfinished()

    def _warn(self, text: str) -> None:
        self.desk.controller.notify(text, warn=True)

    # what is shown ------------------------------------------------------------------------------------------

    def _on_folder(self, folder: Path) -> None:
        if not self.closed:
            self.folder.value = folder

    def _summarize_soon(self, *_: object) -> None:
        if not self.closed:
            self._summary_timer.start(SUMMARY_MS)

    def _summarize(self) -> None:
        """Count the cases, in the desk's other thread."""
        folder = Path(self.folder.value)
        self.settings.name.setPlaceholderText(folder.name or "decoder")
        summarize = partial(look_at, folder, self.settings.seed.value(), self.settings.split)
        self.desk.in_background(summarize, partial(self._show_summary, folder))

    def _show_summary(self, folder: Path, done: Future[Overview]) -> None:
        if self.closed or folder != Path(self.folder.value):
            return
        error = done.exception()
        self.summary.setText(str(error) if error is not None else "\n".join(done.result().lines))

    def _show_run(self, view: RunState) -> None:
        running = self.training.running
        self.start.setEnabled(not running)
        self.resume.setEnabled(not running)
        self.stop.setEnabled(running and not view.stopping)
        self.progress.setVisible(running)
        self.progress.setRange(0, view.of)  # 0: busy, for an unknown time
        self.progress.setValue(view.done)
        known = running or view.ended
        self.line.setText(view.line if known else "No run yet.")
        self.device.setText(_describe_data(view))
        self.device.setVisible(bool(view.device))
        self.plot.show_curve(view.curve, view.epochs, view.best)
        self.plot.setVisible(known)
        if known and (view.ended, self.training.folder) != self._verdict_of:
            self._verdict_of = view.ended, self.training.folder
            self.verdict.show_verdict(view.verdict, self.training.folder, _without_verdict(view))
            self._show_back()

    def _on_ended(self, _request: object, view: RunState) -> None:
        self._show_unfinished()
        self._summarize_soon()
        if view.decoder is not None:
            self.list.select(view.name)

    def _show_decoder(self, decoder: OwnDecoder) -> None:
        """Show the verdict that a decoder's file holds; there are pictures of the last run's only."""
        view = self.training.view
        if view.decoder == decoder.path:
            self.verdict.show_verdict(view.verdict, self.training.folder, _without_verdict(view))
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

    def _on_closing(self) -> None:
        """The desk ends, and all that the panel shows with it."""
        if not self.closed:  # later: napari may be taking out the dock just now
            QTimer.singleShot(0, partial(_remove, self))


def _remove(panel: RetrainPanel) -> None:
    with suppress(RuntimeError):  # the whole window has been deleted meanwhile
        window = panel.desk.viewer.window
        if panel in window.dock_widgets.values():
            window.remove_dock_widget(panel)


def _describe_data(view: RunState) -> str:
    if not view.device:
        return ""
    sides = view.split or {}
    return (
        f"{view.cases} cases, {view.objects} objects; {sides.get('train', 0)} cases train, "
        f"{sides.get('val', 0)} validate, {sides.get('test', 0)} judge; on {view.device}"
    )


def _without_verdict(view: RunState) -> str:
    if view.state == "stopped" and view.decoder is not None:
        return f"{view.name} was stopped before it was judged."
    return "" if view.ended else "A verdict comes when the run ends."


def _box(title: str, *parts: Part) -> QGroupBox:
    box = QGroupBox(title)
    column = QVBoxLayout(box)
    for part in parts:
        column.addLayout(part) if isinstance(part, QLayout) else column.addWidget(part)
    return box
