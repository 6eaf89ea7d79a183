"""The dock's two tables, classes and objects: they show a document and report what the user picks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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

from napari_medsam.document.objects import Document, ObjectClass, Part, PlaneKey
from napari_medsam.ui.qt.build import button, hbox, row_table

FEW_PLANES = 3  # are named; of more it is said how many
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
    """One row an object: id, class, planes, prompts, predicted IoU, state. A click selects it in its layers."""

    chosen = Signal(int)
    HEADINGS = ("Object", "Class", "Planes", "Prompts", "IoU", "State")

    def __init__(self) -> None:
        super().__init__()
        row_table(self, self.HEADINGS)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(120)
        self.setToolTip(
            "IoU is the model's own guess of how good its mask is: the lowest, where an object lies on several planes."
        )
        self.cellClicked.connect(lambda row, _column: self.chosen.emit(int(self.item(row, 0).text())))

    def show_objects(self, document: Document | None) -> None:
        records = list(document) if document is not None else []
        self.setRowCount(len(records))
        for row, record in enumerate(records):
            assert document is not None
            name, parts = document.class_of(record.class_id).name, tuple(record.parts.values())
            prompts, planes = describe_prompts(parts), describe_planes(record.parts)
            texts = (str(record.id), name, planes, prompts, _iou(parts), _state(parts))
            for column, text in enumerate(texts):
                self._set(row, column, text)

    def _set(self, row: int, column: int, text: str) -> None:
        item = self.item(row, column)
        if item is None:
            self.setItem(row, column, QTableWidgetItem(text))
        elif item.text() != text:
            item.setText(text)


def describe_planes(planes: Iterable[PlaneKey]) -> str:
    """Where an object lies: "" in a flat image, "2, 5" by the sliders' positions, "12 planes" for more than a few."""
    places = [str(plane) for plane in planes]
    return ", ".join(places) if len(places) <= FEW_PLANES else f"{len(places)} planes"


def describe_prompts(parts: Sequence[Part]) -> str:
    """The prompts of an object in words: "box", "2 boxes + 3 clicks", "1 click"; "" for one that was painted."""
    boxes = sum(part.box is not None for part in parts)
    clicks = sum(len(part.points) for part in parts)
    words = [] if not boxes else ["box" if boxes == 1 else f"{boxes} boxes"]
    if clicks:
        words.append(f"{clicks} click{'s' if clicks > 1 else ''}")
    return " + ".join(words)


def _iou(parts: Sequence[Part]) -> str:
    known = [part.prediction.iou for part in parts if part.prediction is not None]
    return f"{min(known):.2f}" if known else ""


def _state(parts: Sequence[Part]) -> str:
    """What is most worth knowing of any part."""
    if any(part.problem for part in parts):
        return "refused"
    if any(part.prompt is not None and part.prediction is None and not part.corrected for part in parts):
        return "waiting"
    if any(part.corrected for part in parts):
        return "corrected" if any(part.prompt is not None for part in parts) else "painted"
    return "predicted" if any(part.prediction is not None for part in parts) else "waiting"


def _swatch(color: str) -> QIcon:
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)
