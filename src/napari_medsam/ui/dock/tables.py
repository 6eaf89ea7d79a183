"""The dock's two tables, classes and objects: they show a document and report what the user picks."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QListWidget,
    QListWidgetItem,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_medsam.document.objects import Document, ObjectClass, ObjectRecord
from napari_medsam.ui.qt.build import button, hbox, row_table

MOST_CLASSES = 9  # one for each number key


class ClassList(QWidget):  # type: ignore[misc]
    """Named, coloured classes; the current one is what the next box becomes. Double click renames."""

    chosen = Signal(int)
    renamed = Signal(int, str)

    def __init__(self) -> None:
        super().__init__()
        self.list = QListWidget()
        self.list.setMaximumHeight(84)
        self.list.setToolTip(
            "The class of the boxes you draw. Number keys choose it too; double click renames."
        )
        self.add = button("+", "Add a class")
        self.add.setFixedWidth(28)
        hbox(self.list, self.add, within=self).setAlignment(self.add, Qt.AlignmentFlag.AlignTop)
        self.list.itemClicked.connect(lambda item: self.chosen.emit(item.data(Qt.ItemDataRole.UserRole)))
        self.list.itemChanged.connect(self._on_changed)

    def show_classes(self, classes: tuple[ObjectClass, ...], current: int) -> None:
        with signals_blocked(self.list):
            self.list.clear()
            for found in classes:
                item = QListWidgetItem(_swatch(found.color), found.name)
                item.setData(Qt.ItemDataRole.UserRole, found.id)
                item.setToolTip(f"Key {found.id}")
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                self.list.addItem(item)
                if found.id == current:
                    self.list.setCurrentItem(item)
        self.add.setEnabled(len(classes) < MOST_CLASSES)

    def _on_changed(self, item: QListWidgetItem) -> None:
        self.renamed.emit(item.data(Qt.ItemDataRole.UserRole), item.text())


class ObjectTable(QTableWidget):  # type: ignore[misc]
    """One row an object: id, class, prompts, predicted IoU, state. A click selects the object in its layers."""

    chosen = Signal(int)
    HEADINGS = ("Object", "Class", "Prompts", "IoU", "State")

    def __init__(self) -> None:
        super().__init__()
        row_table(self, self.HEADINGS)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(120)
        self.setToolTip("IoU is the model's own guess of how good its mask is.")
        self.cellClicked.connect(lambda row, _column: self.chosen.emit(int(self.item(row, 0).text())))

    def show_objects(self, document: Document | None) -> None:
        records = list(document) if document is not None else []
        self.setRowCount(len(records))
        for row, record in enumerate(records):
            assert document is not None
            name = document.class_of(record.class_id).name
            texts = (str(record.id), name, describe_prompts(record), _iou(record), _state(record))
            for column, text in enumerate(texts):
                self._set(row, column, text)

    def _set(self, row: int, column: int, text: str) -> None:
        item = self.item(row, column)
        if item is None:
            self.setItem(row, column, QTableWidgetItem(text))
        elif item.text() != text:
            item.setText(text)


def describe_prompts(record: ObjectRecord) -> str:
    """The prompts of an object in words: "box", "box + 2 clicks", "1 click"; "" for one that was painted."""
    parts = [] if record.box is None else ["box"]
    if record.points:
        parts.append(f"{len(record.points)} click{'s' if len(record.points) > 1 else ''}")
    return " + ".join(parts)


def _iou(record: ObjectRecord) -> str:
    return f"{record.prediction.iou:.2f}" if record.prediction is not None else ""


def _state(record: ObjectRecord) -> str:
    if record.problem:
        return "refused"
    if record.corrected:
        return "corrected" if record.prompt is not None else "painted"
    return "predicted" if record.prediction is not None else "waiting"


def _swatch(color: str) -> QIcon:
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)
