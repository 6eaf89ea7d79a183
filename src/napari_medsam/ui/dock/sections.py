"""The sections of the dock, from its top to its bottom. Each shows a part of the desk and connects its own controls."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FileEdit, create_widget
from napari.layers import Image
from qtpy.QtWidgets import QFormLayout, QLabel, QProgressBar, QWidget
from superqt.utils import signals_blocked

from napari_medsam.embedding.scheduler import Progress
from napari_medsam.segment.detail import MOST_DETAIL
from napari_medsam.ui.dock.controls import ChannelChoice, ContrastChoice, ModelChoice
from napari_medsam.ui.dock.tables import ClassList, ObjectTable
from napari_medsam.ui.qt.activity import Pace
from napari_medsam.ui.qt.bridge import single_shot
from napari_medsam.ui.qt.build import button, hbox, spin_box, vbox

if TYPE_CHECKING:
    from napari_medsam.embedding.cache import CacheStats
    from napari_medsam.layers.work import Work
    from napari_medsam.ui.desk.controller import Controller
    from napari_medsam.ui.desk.desk import Desk

OVERLAPS = [("Keep corrected", "corrected"), ("Later wins", "later"), ("Never overwrite", "never")]
FIELDS = [("Around small boxes", "auto"), ("Whole plane", "whole")]
REFRESH_MS = 250  # after a prompt: its mask comes first, and each change of a widget repaints the window


class ImageSection(QWidget):  # type: ignore[misc]
    """The image at work, the model, and what of the image the model sees."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._controller = desk.controller
        settings = self._controller.session.settings
        self.layer: Any = create_widget(annotation=Image, label="Image")
        self.model = ModelChoice(settings.model, settings.device)
        self.contrast = ContrastChoice()
        self.channels = ChannelChoice()
        self.field = ComboBox(
            choices=FIELDS,
            value=settings.field,
            tooltip="Small objects are found far better in a field around their box than on the whole plane",
        )
        self.detail = spin_box(
            1,
            MOST_DETAIL,
            settings.detail,
            "Above 1, a large box is decoded in pieces on finer fields. It helps decoders fine-tuned on thin "
            "structures, and rarely the released one",
        )
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Image", self.layer.native)
        form.addRow("Model", self.model)
        form.addRow("Contrast", self.contrast)
        form.addRow(self.channels)
        form.addRow("Field", self.field.native)
        form.addRow("Detail", self.detail)
        self._layer_events = desk.viewer.layers.events
        self._connect(desk)

    def _connect(self, desk: Desk) -> None:
        controller = self._controller
        self.layer.changed.connect(controller.set_image)
        self.model.changed.connect(desk.decoders.use)
        self.model.device_changed.connect(lambda device: controller.configure(device=device))
        self.contrast.changed.connect(self._on_contrast)
        self.channels.axis_changed.connect(controller.set_channel_axis)
        self.channels.channels_changed.connect(lambda _: self._on_contrast())
        self.field.changed.connect(lambda field: controller.configure(field=field))
        self.detail.valueChanged.connect(lambda detail: controller.configure(detail=detail))
        desk.decoders.changed.connect(self.model.refresh)
        desk.closing.connect(self._disconnect)
        controller.configured.connect(self._on_configured)
        controller.work_changed.connect(self._on_work)
        for event in ("inserted", "removed", "reordered"):
            getattr(self._layer_events, event).connect(self.layer.reset_choices)

    def _disconnect(self) -> None:
        for event in ("inserted", "removed", "reordered"):
            getattr(self._layer_events, event).disconnect(self.layer.reset_choices)

    def _on_contrast(self) -> None:
        chosen = self.contrast.value()
        if chosen is None:
            self._controller.follow_layer_contrast(self.channels.chosen())
        else:
            self._controller.configure(contrast=self.channels.apply_to(chosen))

    def _on_work(self, work: Work | None) -> None:
        image, channel = (None, None) if work is None else (work.image, work.axes.channel)
        self.channels.show_layer(image, channel)
        if image is not None and self.layer.value is not image and image in self.layer.choices:
            with self.layer.changed.blocked():
                self.layer.value = image

    def _on_configured(self) -> None:
        settings = self._controller.session.settings
        self.model.show_model(settings.model)
        with signals_blocked(self.detail):
            self.detail.setValue(settings.detail)


class ProgressSection(QWidget):  # type: ignore[misc]
    """What happens to the plane on screen, and how far embedding or a download is."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._pace = Pace()
        self.status = QLabel("Open an image to begin.")
        self.status.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.hide()
        self.cancel = button("Cancel", "Stop embedding; what is finished stays in the cache")
        self.cancel.setEnabled(False)
        vbox(self.status, hbox(self.bar, self.cancel), within=self)
        self.cancel.clicked.connect(lambda: controller.cancel())
        controller.status.connect(lambda text: self.status.setText(text))
        controller.progressed.connect(self._on_progress)
        controller.session.downloading.connect(self._on_download)
        controller.activity.seen_elsewhere = self._bar_on_screen

    def _on_progress(self, now: Progress) -> None:
        loading = now.state == "loading"
        busy = loading or now.state in ("embedding", "paused")
        self.bar.setVisible(busy)
        self.cancel.setEnabled(busy)
        self.bar.setRange(0, 0 if loading else max(now.total, 1))
        self.bar.setValue(now.done)
        text, left = f"{now.done} of {now.total}", self._pace.left(now)
        if left is not None:
            text += f", {left:.0f} s left"
        self.bar.setFormat("loading model" if loading else text)

    def _on_download(self, done: int, total: int) -> None:
        size = f" of {total / 2**20:.0f}" if total else ""
        self.status.setText(f"Fetching the model: {done / 2**20:.0f}{size} MB")
        self.bar.setVisible(done < total)
        self.bar.setRange(0, 100)
        self.bar.setValue(100 * done // total if total else 0)
        self.bar.setFormat("%p %")

    def _bar_on_screen(self) -> bool:
        """Whether the user sees the progress bar: not in a tab behind another, not scrolled away."""
        return self.bar.isVisible() and not self.bar.visibleRegion().isEmpty()


class ObjectSection(QWidget):  # type: ignore[misc]
    """The classes, what a new mask may overwrite, and the objects of the image at work."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._controller = desk.controller
        self.classes = ClassList()
        self.overlaps = ComboBox(choices=OVERLAPS, tooltip="What a new mask may overwrite")
        self.table = ObjectTable()
        form = QFormLayout()
        form.addRow("Classes", self.classes)
        form.addRow("Overlaps", self.overlaps.native)
        vbox(form, self.table, within=self)
        self._timer = single_shot(self, self._refresh)
        desk.closing.connect(self._timer.stop)
        self.classes.chosen.connect(lambda number: self._with_work(lambda work: work.choose_class(number)))
        self.classes.renamed.connect(
            lambda number, name: self._with_work(lambda work: work.document.set_class(number, name))
        )
        self.classes.add.clicked.connect(lambda: self._with_work(_add_class))
        self.overlaps.changed.connect(partial(setattr, self._controller.choices, "policy"))
        self.table.chosen.connect(lambda number: self._with_work(lambda work: work.select(number)))
        self._controller.work_changed.connect(self._on_work)
        self._controller.painted.connect(self._refresh_soon)
        self._refresh()

    def _with_work(self, act: Callable[[Work], object]) -> None:
        if self._controller.work is not None:
            act(self._controller.work)
            self._refresh_soon()

    def _on_work(self, work: Work | None) -> None:
        if work is not None:
            document = work.document
            for signal in (document.edited, document.classes_changed):
                signal.connect(self._refresh_soon, unique=True)
        self._refresh_soon()

    def _refresh_soon(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start(REFRESH_MS)

    def _refresh(self) -> None:
        work = self._controller.work
        self.table.show_objects(None if work is None else work.document)
        if work is not None:
            self.classes.show_classes(work.document.classes, self._controller.choices.class_id)


class ExportSection(QWidget):  # type: ignore[misc]
    """The dataset folder, the export into it, and the way to the Retrain panel."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.folder = FileEdit(mode="d", value=desk.folder)
        self.button = button("Export masks as training cases")
        self.retrain = button(
            "Retrain ...", "Train the decoder on exported cases, and use it only if it is better"
        )
        vbox(QLabel("Dataset folder"), self.folder.native, hbox(self.button, self.retrain), within=self)
        self.folder.changed.connect(lambda folder: setattr(desk, "folder", Path(folder)))
        self.button.clicked.connect(lambda: desk.export())
        desk.exporting.connect(self.button.setDisabled)


class CacheSection(QWidget):  # type: ignore[misc]
    """How large the embedding cache is, and a button to clear it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._counting = False
        self.text = QLabel()
        self.clear = button("Clear", "Delete all cached embeddings; they are made again when needed")
        hbox(self.text, self.clear, within=self)
        self._timer = single_shot(self, self._count)
        desk.closing.connect(self._timer.stop)
        self.clear.clicked.connect(self._clear)
        controller = desk.controller
        controller.work_changed.connect(self._count_soon)
        controller.painted.connect(self._count_soon)
        controller.progressed.connect(lambda now: self._count_soon() if now.state == "idle" else None)
        self._count()

    def _count_soon(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start(REFRESH_MS)

    def _count(self) -> None:
        """Counting files takes time, so it is left to the other thread."""
        cache = self._desk.controller.session.cache
        if not self._counting:
            self._counting = True
            self._desk.in_background(lambda: (cache.stats(), cache.problem), self._on_counted)

    def _on_counted(self, done: Future[tuple[CacheStats, str | None]]) -> None:
        self._counting = False
        stats, problem = done.result()
        used, cap = stats.bytes / 2**20, stats.max_bytes / 2**30
        self.text.setText(problem or f"Cache: {stats.entries} embeddings, {used:.0f} MB of {cap:.0f} GB")

    def _clear(self) -> None:
        self._desk.in_background(self._desk.controller.session.cache.clear, self._on_cleared)

    def _on_cleared(self, done: Future[int]) -> None:
        self._desk.controller.notify(f"{done.result()} cached embeddings deleted.")
        self._count_soon()


def _add_class(work: Work) -> None:
    work.choose_class(max(known.id for known in work.document.classes) + 1)
