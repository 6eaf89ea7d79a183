"""The settings of a training run."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QWidget

from napari_medsam.finetune.config import VIEWS, FinetuneConfig
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.model.catalogue import without_decoder
from napari_medsam.model.names import find_model
from napari_medsam.segment.detail import MOST_DETAIL
from napari_medsam.ui.qt.build import button, hbox, spin_box

AUTO_EPOCHS = 0


class TrainingSettings(QWidget):  # type: ignore[misc]
    """Name, epochs, detail, views, seed and split; ``split_changed()`` when the cases would be divided otherwise."""

    split_changed = Signal()

    def __init__(self, detail: int) -> None:
        super().__init__()
        self.name = QLineEdit()
        self.name.setToolTip("The name of the new decoder; a number is added if the name is taken")
        self.epochs = spin_box(AUTO_EPOCHS, 1000, AUTO_EPOCHS, "How many times each object is trained on")
        self.epochs.setSpecialValueText("auto")
        self.detail = spin_box(
            1,
            MOST_DETAIL,
            detail,
            "Above 1: for thin structures; they are trained and found in pieces on finer fields",
        )
        self.views = spin_box(
            1, VIEWS, 1, "Above 1: each field is also embedded turned and mirrored; the first run is slower"
        )
        self.seed = spin_box(
            0, 10_000, 0, "Seed of the split, the order and the boxes; the same seed gives the same decoder"
        )
        self.table = QLineEdit()
        self.table.setPlaceholderText("by group")
        self.table.setToolTip(
            "A CSV file with lines of stem,train|val|test; if empty, whole groups are divided by the seed"
        )
        self.choose = button("...")
        self.choose.setFixedWidth(28)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Name", self.name)
        form.addRow("Epochs", _beside(self.epochs, ("Seed", self.seed)))
        form.addRow("Detail", _beside(self.detail, ("Views", self.views)))
        form.addRow("Split", hbox(self.table, self.choose))
        self.seed.valueChanged.connect(self.split_changed)
        self.table.editingFinished.connect(self.split_changed)
        self.choose.clicked.connect(self._choose_table)

    @property
    def split(self) -> Path | None:
        text = self.table.text().strip()
        return Path(text).expanduser() if text else None

    def request(self, dataset: Path, current: str, device: str) -> TrainingRequest:
        """The run asked for, against the model or decoder in use. Raises MedSAMError for one that is gone."""
        return TrainingRequest(
            dataset=dataset,
            name=self.name.text().strip() or dataset.name or "decoder",
            base=without_decoder(find_model(current)),
            current=current,
            config=FinetuneConfig(
                epochs=self.epochs.value() or None,
                detail=self.detail.value(),
                views=self.views.value(),
                seed=self.seed.value(),
            ),
            device=device,
            split=self.split,
        )

    def _choose_table(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "A table of stem,role", "", "Tables (*.csv);;All (*)")
        if chosen:
            self.table.setText(chosen)
            self.split_changed.emit()


def _beside(first: QWidget, second: tuple[str, QWidget]) -> QHBoxLayout:
    layout = hbox(first, QLabel(second[0]), second[1])
    layout.setStretch(0, 1)
    layout.setStretch(2, 1)
    return layout
