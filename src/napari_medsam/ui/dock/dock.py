"""The MedSAM dock widget: shows what a controller says and tells it what the user wants; decides nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import napari
from magicgui.widgets import ComboBox, FileEdit, create_widget
from napari.layers import Image
from qtpy.QtCore import QEvent, QTimer, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_medsam.embedding.scheduler import Progress
from napari_medsam.errors import MedSAMError
from napari_medsam.finetune.run import TrainingProcess
from napari_medsam.segment.detail import MOST_DETAIL
from napari_medsam.ui.desk.controller import Controller
from napari_medsam.ui.desk.decoders import Decoders
from napari_medsam.ui.desk.training import Begin, Training
from napari_medsam.ui.dock.controls import ChannelChoice, ContrastChoice, ModelChoice, describe_cache
from napari_medsam.ui.dock.recovery_row import LeftoverRow
from napari_medsam.ui.dock.tables import ClassList, ObjectTable
from napari_medsam.ui.dock.tools import PromptTools
from napari_medsam.ui.qt.activity import Pace
from napari_medsam.ui.qt.bridge import is_taken_out, single_shot
from napari_medsam.ui.qt.hold import CanvasHold

if TYPE_CHECKING:
    from napari_medsam.finetune.request import TrainingRequest
    from napari_medsam.finetune.run_state import RunView
    from napari_medsam.layers.work import Work
    from napari_medsam.ui.retrain.panel import RetrainPanel

Result = TypeVar("Result")

OVERLAPS = {"Keep corrected": "corrected", "Later wins": "later", "Never overwrite": "never"}
FIELDS = {"Around small boxes": "auto", "Whole plane": "whole"}
REFRESH_MS = 250  # after a prompt: its mask comes first, and each change of a widget repaints the window
FIRST_WORK_MS = 50  # after the window is up: nothing heavy before


class MedSAMDock(QScrollArea):  # type: ignore[misc]
    """Draw boxes on an image, get masks, correct them, export training cases.

    ``controller_options`` go to the ``Controller`` (tests pass a small model and a cache of their own), ``begin`` to
    the ``Training``. ``exported(folder)`` is emitted after cases were written, ``closing()`` before the work ends.
    """

    exported = Signal(object)
    closing = Signal()

    def __init__(
        self, viewer: napari.viewer.Viewer, *, begin: Begin = TrainingProcess, **controller_options: Any
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self.controller = Controller(viewer, **controller_options)
        self.decoders = Decoders(self.controller)
        self.training = Training(begin)
        self._io = ThreadPoolExecutor(1, thread_name_prefix="medsam-export")
        self._pace = Pace()
        self._hold = CanvasHold(self)
        self._counting: Future[None] | None = None
        self._closed = False
        self._make_controls()
        self._lay_out()
        self._refresh_timer = single_shot(self, self._refresh)
        self._connect()
        self._refresh()
        QTimer.singleShot(FIRST_WORK_MS, self._start)
        self.destroyed.connect(partial(_shut, self.controller, self._io, self.training.close))

    def close_session(self) -> None:
        """Stop all work of this dock; called when it is closed or destroyed, and safe to call before."""
        if not self._closed:
            self._closed = True
            self.closing.emit()
            self.training.close()
            self._refresh_timer.stop()
            self._hold.release()
            for emitter in self._layer_events():
                emitter.disconnect(self.image.reset_choices)
            _shut(self.controller, self._io)

    def changeEvent(self, event: QEvent | None) -> None:
        """napari takes a dock widget that the user closes out of its window and forgets it: end with that."""
        super().changeEvent(event)
        if is_taken_out(self, event) and not getattr(self, "_closed", True):
            self.close_session()
            self.deleteLater()

    def _layer_events(self) -> tuple[Any, ...]:
        events = self.viewer.layers.events
        return events.inserted, events.removed, events.reordered

    # the parts ----------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.leftover = LeftoverRow(self.controller)
        self.image: Any = create_widget(annotation=Image, label="Image")
        settings = self.controller.session.settings
        self.model = ModelChoice(settings.model, settings.device)
        self.contrast = ContrastChoice()
        self.channels = ChannelChoice()
        self.field = ComboBox(
            choices=list(FIELDS),
            value=next(label for label, name in FIELDS.items() if name == settings.field),
            tooltip="Small objects are found far better in a field around their box than on the whole plane",
        )
        self.detail = QSpinBox()
        self.detail.setRange(1, MOST_DETAIL)
        self.detail.setValue(settings.detail)
        self.detail.setKeyboardTracking(False)
        self.detail.setToolTip(
            "Above 1, a large box is decoded piece by piece on finer fields: for decoders fine-tuned on "
            "thin structures; the released one seldom gains"
        )
        self.tools = PromptTools()
        self.draw = self.tools.draw
        self.status = QLabel("Open an image to begin.")
        self.status.setWordWrap(True)
        self.progress = QProgressBar()
        self.progress.hide()
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop embedding; what is finished stays in the cache")
        self.cancel.setEnabled(False)
        self.classes = ClassList()
        self.overlaps = ComboBox(
            choices=list(OVERLAPS), tooltip="What a new mask may do to masks that are there"
        )
        self.objects = ObjectTable()
        self.dataset = FileEdit(mode="d", value=Path.home() / "medsam-dataset")
        self.export = QPushButton("Export masks as training cases")
        self.retrain = QPushButton("Retrain ...")
        self.retrain.setToolTip("Train the decoder on exported cases, and use it only if it is better")
        self.cache = QLabel()
        self.clear = QPushButton("Clear")
        self.clear.setToolTip("Delete all cached embeddings; they are made again when needed")

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Image", self.image.native)
        form.addRow("Model", self.model)
        form.addRow("Contrast", self.contrast)
        form.addRow(self.channels)
        form.addRow("Field", self.field.native)
        form.addRow("Detail", self.detail)
        bar = _row(self.progress, self.cancel)
        below = QFormLayout()
        below.addRow("Classes", self.classes)
        below.addRow("Overlaps", self.overlaps.native)
        inner = QWidget()
        column = QVBoxLayout(inner)
        for part in (self.leftover, form, self.tools, self.status, bar, below, self.objects):
            column.addLayout(part) if isinstance(part, QFormLayout | QHBoxLayout) else column.addWidget(part)
        for widget in (QLabel("Dataset folder"), self.dataset.native):
            column.addWidget(widget)
        column.addLayout(_row(self.export, self.retrain))
        column.addLayout(_row(self.cache, self.clear))
        column.addStretch()
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setMinimumWidth(300)

    def _connect(self) -> None:
        controller = self.controller
        for emitter in self._layer_events():
            emitter.connect(self.image.reset_choices)
        self.image.changed.connect(controller.set_image)
        self.model.changed.connect(self.decoders.use)
        self.decoders.changed.connect(self.model.refresh)
        controller.configured.connect(self._on_configured)
        controller.session.model_changed.connect(self.tools.show_model)
        self.training.ended.connect(self._on_trained)
        self.model.device_changed.connect(lambda device: controller.configure(device=device))
        self.field.changed.connect(lambda label: controller.configure(field=FIELDS[label]))
        self.detail.valueChanged.connect(lambda detail: controller.configure(detail=detail))
        controller.session.downloading.connect(self._on_download)
        self.contrast.changed.connect(self._on_contrast)
        self.channels.axis_changed.connect(controller.set_channel_axis)
        self.channels.channels_changed.connect(lambda _: self._on_contrast())
        self.tools.boxes.connect(controller.draw_boxes)
        self.tools.clicks.connect(controller.click_objects)
        self.tools.next_object.connect(lambda: self._with_work(lambda work: work.clicking.begin_next()))
        self.tools.live.connect(partial(setattr, controller.choices, "preview"))
        self.cancel.clicked.connect(lambda: controller.cancel())
        self.classes.chosen.connect(lambda number: self._with_work(lambda work: work.choose_class(number)))
        self.classes.renamed.connect(
            lambda number, name: self._with_work(lambda work: work.document.set_class(number, name))
        )
        self.classes.wanted.connect(self._add_class)
        self.overlaps.changed.connect(self._on_overlaps)
        self.objects.chosen.connect(lambda number: self._with_work(lambda work: work.select(number)))
        self.export.clicked.connect(lambda: self.export_cases())
        self.retrain.clicked.connect(lambda: self.open_retrain())
        self.clear.clicked.connect(self._clear_cache)
        controller.work_changed.connect(self._on_work)
        controller.status.connect(lambda text: self.status.setText(text))
        controller.progressed.connect(self._on_progress)
        controller.activity.seen_elsewhere = self._bar_on_screen
        controller.asked.connect(self._hold.begin)
        controller.painted.connect(lambda _: self._hold.release())
        controller.painted.connect(lambda _: self._refresh_soon())

    def _start(self) -> None:
        if not self._closed:
            self.controller.start()
            self.image.reset_choices()

    # what the user does -------------------------------------------------------------------------------------

    def export_cases(
        self, folder: Path | None = None, *, corrected: bool = False
    ) -> Future[list[Path]] | None:
        """Write every plane with masks as a case, in the background; None if there is nothing to write.

        corrected: only planes with a corrected object, but of every image at work.
        """
        target = Path(folder or self.dataset.value)
        work, session = self.controller.work, self.controller.session
        if work is None:
            self.controller.say("Open an image and draw a box first.")
            return None
        # They pull in the curation room: not before it is needed.
        from napari_medsam.curation.snapshot import write
        from napari_medsam.layers.snapshot import corrected_planes, snapshot

        try:
            taken = corrected_planes(self.controller.works, session) if corrected else snapshot(work, session)
        except MedSAMError as error:
            self.controller.say(str(error))
            return None
        self.export.setEnabled(False)
        saved = self.controller.journals.exporting(taken)
        return self.in_background(partial(write, target, taken), partial(self._exported, target, saved))

    def in_background(
        self, work: Callable[[], Result], then: Callable[[Future[Result]], None]
    ) -> Future[Result]:
        """Do something that takes time after what was asked before, and go on with it in the main thread."""
        done = self._io.submit(work)
        done.add_done_callback(lambda future: self.controller.post(partial(then, future)))
        return done

    def open_retrain(self) -> RetrainPanel:
        """Show the panel for training decoders, beside this dock in the same place."""
        from napari_medsam.ui.retrain.panel import open_panel

        return open_panel(self)

    def _exported(self, target: Path, saved: Callable[[], None], done: Future[list[Path]]) -> None:
        self.export.setEnabled(True)
        error = done.exception()
        if error is not None:
            self.controller.say(f"Export to {target} failed: {error}", warn=True)
            return
        saved()
        self.exported.emit(target)
        count = len(done.result())
        self.controller.say(f"{count} case{'s' if count != 1 else ''} in {target}.")

    def _on_contrast(self) -> None:
        choice = self.contrast.value()
        if choice is None:
            self.controller.follow_layer_contrast(self.channels.chosen())
        else:
            self.controller.configure(contrast=self.channels.apply_to(choice))

    def _on_overlaps(self, label: str) -> None:
        self.controller.choices.policy = OVERLAPS[label]  # type: ignore[assignment]

    def _add_class(self) -> None:
        def add(work: Work) -> None:
            work.choose_class(max(found.id for found in work.document.classes) + 1)

        self._with_work(add)

    def _clear_cache(self) -> None:
        def clear() -> None:
            removed = self.controller.session.cache.clear()
            self.controller.post(lambda: self.controller.say(f"{removed} cached embeddings deleted."))
            self.controller.post(self._refresh_soon)

        self._io.submit(clear)

    def _with_work(self, act: Any) -> None:
        if self.controller.work is not None:
            act(self.controller.work)
            self._refresh_soon()

    # what the controller says -------------------------------------------------------------------------------

    def _on_work(self, work: Work | None) -> None:
        image, channel = (None, None) if work is None else (work.image, work.axes.channel)
        self.channels.show_layer(image, channel)
        if work is not None:
            for name in ("added", "changed", "removed", "classes_changed"):
                getattr(work.document, name).connect(self._refresh_soon, unique=True)
            if self.image.value is not work.image and work.image in self.image.choices:
                with self.image.changed.blocked():
                    self.image.value = work.image
        self._refresh_soon()

    def _on_configured(self) -> None:
        settings = self.controller.session.settings
        self.model.show_model(settings.model)
        self.tools.show_model(self.controller.session.model)
        self.detail.blockSignals(True)
        self.detail.setValue(settings.detail)
        self.detail.blockSignals(False)

    def _on_trained(self, request: TrainingRequest, view: RunView) -> None:
        self.controller.say(self.decoders.take(request, view), warn=view.state == "failed")

    def _on_progress(self, now: Progress) -> None:
        busy = now.state in ("loading", "embedding", "paused")
        self.progress.setVisible(busy)
        self.cancel.setEnabled(busy)
        self.progress.setRange(0, 0 if now.state == "loading" else max(now.total, 1))
        self.progress.setValue(now.done)
        text, left = f"{now.done} of {now.total}", self._pace.left(now)
        if left is not None:
            text += f", {left:.0f} s left"
        self.progress.setFormat("loading model" if now.state == "loading" else text)
        if not busy:
            self._refresh_soon()

    def _bar_on_screen(self) -> bool:
        """Whether the user sees the progress bar: not in a tab behind another, not scrolled away."""
        return self.progress.isVisible() and not self.progress.visibleRegion().isEmpty()

    def _on_download(self, done: int, total: int) -> None:
        size = f" of {total / 2**20:.0f}" if total else ""
        self.status.setText(f"Fetching the model: {done / 2**20:.0f}{size} MB")
        self.progress.setVisible(done < total)
        self.progress.setRange(0, 100)
        self.progress.setValue(100 * done // total if total else 0)
        self.progress.setFormat("%p %")

    def _refresh_soon(self, *_: object) -> None:
        if not self._refresh_timer.isActive():
            self._refresh_timer.start(REFRESH_MS)

    def _refresh(self) -> None:
        work = self.controller.work
        document = None if work is None else work.document
        self.objects.show_objects(document)
        if document is not None:
            self.classes.show_classes(document.classes, self.controller.choices.class_id)
        self._look_at_cache()

    def _look_at_cache(self) -> None:
        """Say how large the cache is; counting its files is left to the other thread."""
        cache = self.controller.session.cache

        def count() -> None:
            stats, problem = cache.stats(), cache.problem
            self.controller.post(lambda: self.cache.setText(describe_cache(stats, problem)))

        if self._counting is None or self._counting.done():
            self._counting = self._io.submit(count)


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)
    return row


def _shut(
    controller: Controller, io: ThreadPoolExecutor, end: Callable[[], None] | None = None, *_: object
) -> None:
    if end is not None:
        end()
    io.shutdown(wait=True)
    controller.close()
