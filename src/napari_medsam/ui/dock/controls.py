"""Small composite controls of the dock: model, contrast and channels."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QFileDialog, QLabel, QLineEdit, QWidget
from superqt.utils import signals_blocked

from napari_medsam.errors import MedSAMError
from napari_medsam.image.contrast import PRESETS, Contrast
from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.checkpoint import is_available
from napari_medsam.model.names import find_model, model_names
from napari_medsam.ui.qt.build import hbox, vbox

if TYPE_CHECKING:
    from napari.layers import Image

LARGEST = 1e9
DEVICES = ("auto", "cuda", "mps", "cpu")
FROM_FILE = "Checkpoint file ..."


class ModelChoice(QWidget):  # type: ignore[misc]
    """A registry name or a checkpoint file, and the device to run it on."""

    changed = Signal(str)
    device_changed = Signal(str)

    def __init__(self, name: str, device: str) -> None:
        super().__init__()
        self.name = QComboBox()
        self._current = name
        self.refresh()
        self.device = QComboBox()
        self.device.addItems(DEVICES)
        self.device.setCurrentText(device)
        self.device.setToolTip("auto uses a GPU if there is one, and the CPU if its memory is too small")
        hbox(self.name, self.device, within=self).setStretch(0, 1)
        self.name.currentIndexChanged.connect(self._on_name)
        self.device.currentTextChanged.connect(self.device_changed)

    def refresh(self) -> None:
        """List the models and the user's decoders as they are now."""
        with signals_blocked(self.name):
            self.name.clear()
            for known in model_names():
                with suppress(MedSAMError):  # a decoder whose model is gone
                    tip = _describe(find_model(known))
                    self.name.addItem(known, known)
                    self.name.setItemData(self.name.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
            self.name.addItem(FROM_FILE, None)
        self.show_model(self._current)

    def _on_name(self) -> None:
        chosen = self.name.currentData()
        if chosen is None:
            chosen, _ = QFileDialog.getOpenFileName(
                self, "Open a checkpoint", "", "Checkpoints (*.pth *.pt *.safetensors)"
            )
            if not chosen:
                self.show_model(self._current)
                return
        self.show_model(chosen)
        self.changed.emit(chosen)

    def show_model(self, name: str) -> None:
        """Show another model as the chosen one; emits nothing."""
        self._current = name
        with signals_blocked(self.name):
            index = self.name.findData(name)
            if index < 0:  # a file: listed in front of the entry that opens one
                index = self.name.count() - 1
                self.name.insertItem(index, Path(name).name, name)
            self.name.setCurrentIndex(index)


def _describe(spec: ModelSpec) -> str:
    """What a tooltip says about a model."""
    size = "" if spec.size is None else f", {spec.size / 2**20:.0f} MB"
    where = "ready" if is_available(spec) else "downloaded when chosen"
    if spec.origin == "built-in":
        where = "built in"
    return f"{spec.title}{size}, {where}. {spec.licence}"


class ContrastChoice(QWidget):  # type: ignore[misc]
    """How raw intensities become what the model sees. The layer's own pixels are never changed."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.mode = QComboBox()
        self.mode.addItem("Auto (0.5 to 99.5 percentile)", "auto")
        for name, (low, high) in PRESETS.items():
            self.mode.addItem(f"{name.upper().replace('-', ' ')} [{low:g}, {high:g}]", name)
        self.mode.addItem("The layer's contrast limits", "layer")
        self.mode.addItem("Manual", "manual")
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        for box, value in ((self.low, 0.0), (self.high, 255.0)):
            box.setRange(-LARGEST, LARGEST)
            box.setValue(value)
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self.changed)
        self.limits = QWidget()
        hbox(self.low, self.high, within=self.limits)
        self.limits.hide()
        vbox(self.mode, self.limits, within=self)
        self.mode.currentIndexChanged.connect(self._on_mode)

    def value(self) -> Contrast | None:
        """The contrast chosen; None stands for the layer's own limits."""
        name = str(self.mode.currentData())
        if name == "layer":
            return None
        if name != "manual":
            return Contrast.parse(name)
        low, high = self.low.value(), self.high.value()
        return Contrast("window", (min(low, high), max(low, high, low + 1e-6)), name="manual")

    def _on_mode(self) -> None:
        self.limits.setVisible(self.mode.currentData() == "manual")
        self.changed.emit()


class ChannelChoice(QWidget):  # type: ignore[misc]
    """Which axis of a layer holds channels, and which one to three of them the model sees."""

    axis_changed = Signal(object)
    channels_changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.axis = QComboBox()
        self.axis.setToolTip("The axis that holds channels; the model sees up to three of them together")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("0, 1, 2")
        self.channels.setToolTip("One to three channel numbers, counted from 0")
        hbox(QLabel("Channel axis"), self.axis, self.channels, within=self)
        self.axis.currentIndexChanged.connect(self._on_axis)
        self.channels.editingFinished.connect(lambda: self.channels_changed.emit(self.chosen()))
        self.hide()

    def show_layer(self, layer: Image | None, axis: int | None) -> None:
        """Offer the axes of a layer; hidden where there is nothing to choose."""
        with signals_blocked(self.axis):
            self.axis.clear()
            self.axis.addItem("none", None)
            if layer is not None and not layer.rgb:
                for number in range(layer.ndim):
                    self.axis.addItem(f"{number}", number)
            self.axis.setCurrentIndex(0 if axis is None else axis + 1)
        self.channels.setVisible(axis is not None)
        self.setVisible(layer is not None and not layer.rgb and layer.ndim > 2)

    def chosen(self) -> tuple[int, ...] | None:
        """The channel numbers typed, or None for the first three."""
        parts: list[str] = self.channels.text().replace(",", " ").split()
        if self.axis.currentData() is None or not parts or not all(part.isdigit() for part in parts):
            return None
        return tuple(int(part) for part in parts[:3])

    def apply_to(self, contrast: Contrast) -> Contrast:
        return replace(contrast, channels=self.chosen())

    def _on_axis(self) -> None:
        axis = self.axis.currentData()
        self.channels.setVisible(axis is not None)
        self.axis_changed.emit(axis)
