"""The user's own decoders: use, rename, note, delete, export, import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QMessageBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_medsam.errors import MedSAMError
from napari_medsam.finetune.verdict_text import decision_of
from napari_medsam.model.library import OwnDecoder, export_decoder, own_decoders
from napari_medsam.ui.qt.build import button, hbox, row_table, vbox

if TYPE_CHECKING:
    from napari_medsam.ui.desk.decoders import Decoders

HEADINGS = ("Name", "Cases", "Verdict", "Notes")
NAME, NOTES = 0, 3
FILES = "Decoders (*.safetensors)"


class DecoderList(QWidget):  # type: ignore[misc]
    """One row a decoder, the newest first; a name or a note is changed by a double click.

    Signals: ``chosen(OwnDecoder)`` when a row is selected, ``failed(text)`` for what could not be done.
    """

    chosen = Signal(object)
    failed = Signal(str)

    def __init__(self, decoders: Decoders) -> None:
        super().__init__()
        self._decoders = decoders
        self._known: list[OwnDecoder] = []
        self.table = row_table(QTableWidget(), HEADINGS)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setFixedHeight(150)
        self.use, self.delete = button("Use"), button("Delete")
        self.save, self.load = button("Export ..."), button("Import ...")
        vbox(self.table, hbox(self.use, self.delete, self.save, self.load), within=self)
        self.table.itemChanged.connect(self._on_edited)
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.use.clicked.connect(lambda: self._with_selected(lambda decoder: decoders.use(decoder.name)))
        self.delete.clicked.connect(lambda: self._with_selected(self._delete))
        self.save.clicked.connect(lambda: self._with_selected(self._export))
        self.load.clicked.connect(self._import)
        decoders.changed.connect(self.refresh)
        decoders.switched.connect(self.refresh)
        self.refresh()

    @property
    def selected(self) -> OwnDecoder | None:
        row = self.table.currentRow() if self.table.selectedItems() else -1
        return self._known[row] if 0 <= row < len(self._known) else None

    def select(self, name: str) -> None:
        """Select the decoder of a name, if it is there."""
        for row, decoder in enumerate(self._known):
            if decoder.name == name:
                self.table.selectRow(row)

    def refresh(self, *_: object) -> None:
        """List the decoders as they are on disk; the one in use is bold."""
        kept = self.selected
        self._known = own_decoders()
        with signals_blocked(self.table):
            self.table.setRowCount(len(self._known))
            for row, decoder in enumerate(self._known):
                for column, text in enumerate(_cells(decoder)):
                    self.table.setItem(row, column, self._item(decoder, column, text))
            self.table.clearSelection()
            if kept is not None:
                self.select(kept.name)
        self._show_buttons()

    def _item(self, decoder: OwnDecoder, column: int, text: str) -> QTableWidgetItem:
        item = QTableWidgetItem(text)
        item.setToolTip(_tip(decoder))
        if column not in (NAME, NOTES):
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
        font = item.font()
        font.setBold(decoder.name == self._decoders.in_use)
        item.setFont(font)
        return item

    def _show_buttons(self) -> None:
        for one in (self.use, self.delete, self.save):
            one.setEnabled(self.selected is not None)

    def _on_selected(self) -> None:
        self._show_buttons()
        if self.selected is not None:
            self.chosen.emit(self.selected)

    def _on_edited(self, item: QTableWidgetItem) -> None:
        decoder, text = self._known[item.row()], item.text()
        if item.column() == NAME and text != decoder.name:
            self._try(lambda: self._decoders.rename(decoder.name, text.strip()))
        elif item.column() == NOTES and text != decoder.info.notes:
            self._try(lambda: self._decoders.note(decoder.name, text))

    def _delete(self, decoder: OwnDecoder) -> None:
        question = f"Delete the decoder {decoder.name} for good?"
        if QMessageBox.question(self, "Delete", question) == QMessageBox.StandardButton.Yes:
            self._decoders.delete(decoder.name)

    def _export(self, decoder: OwnDecoder) -> None:
        target, _ = QFileDialog.getSaveFileName(self, "Export a decoder", decoder.path.name, FILES)
        if target:
            export_decoder(decoder.name, Path(target))

    def _import(self) -> None:
        source, _ = QFileDialog.getOpenFileName(self, "Import a decoder", "", FILES)
        if source:
            self._try(lambda: self.select(self._decoders.add(Path(source))))

    def _with_selected(self, act: Callable[[OwnDecoder], None]) -> None:
        decoder = self.selected
        if decoder is not None:
            self._try(lambda: act(decoder))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except MedSAMError as error:
            self.failed.emit(str(error))
            self.refresh()


def _cells(decoder: OwnDecoder) -> tuple[str, ...]:
    info = decoder.info
    return decoder.name, str(len(info.cases.get("train", ()))), decision_of(info.verdict), info.notes


def _tip(decoder: OwnDecoder) -> str:
    info = decoder.info
    detail = f", detail {info.detail}" if info.detail > 1 else ""
    reason = "Not judged." if info.verdict is None else info.verdict.reason
    return (
        f"{decoder.name}: for {info.base}{detail}, made {info.created or 'on an unknown date'}\n"
        f"classes {', '.join(info.classes) or 'unknown'}; dataset {info.dataset or 'unknown'}\n{reason}"
    )
