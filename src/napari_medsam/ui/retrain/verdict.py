"""The verdict on a decoder: what was decided and why, a table, and pictures of what it finds hardest."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.finetune.verdict_text import HEADING, rows_of, sentence_of
from napari_medsam.ui.qt.build import vbox

PICTURE_SIDE = 170
TABLE_ROWS = 7
WIDEST_NAME = 150


class VerdictView(QWidget):  # type: ignore[misc]
    """Shows one verdict; empty without one."""

    def __init__(self) -> None:
        super().__init__()
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.table = QTableWidget(0, len(HEADING))
        self.table.setHorizontalHeaderLabels([title.replace(" ", "\n") for title in HEADING])
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.legend = QLabel("The hardest first: truth white, current blue, new orange.")
        self.legend.setWordWrap(True)
        self.strip = QScrollArea()
        self.strip.setWidgetResizable(True)
        self.strip.setFixedHeight(PICTURE_SIDE + 24)
        vbox(self.sentence, self.table, self.legend, self.strip, within=self)
        self.show_verdict(None, None)

    def show_verdict(self, verdict: Verdict | None, folder: Path | None, text: str = "") -> None:
        """Show a verdict and the pictures in its run's folder; text: what to show without a verdict."""
        self.sentence.setText(text if verdict is None else sentence_of(verdict))
        self._show_table([] if verdict is None else rows_of(verdict))
        names = [] if verdict is None or folder is None else verdict.pictures
        # names come from a file: none of them may leave the folder
        self._show_pictures([folder / Path(name).name for name in names] if folder is not None else [])

    def _show_table(self, rows: list[tuple[str, ...]]) -> None:
        self.table.setVisible(bool(rows))
        self.table.setRowCount(len(rows))
        for row, cells in enumerate(rows):
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(row, column, item)
        self.table.resizeColumnsToContents()
        self.table.setColumnWidth(0, min(self.table.columnWidth(0), WIDEST_NAME))
        self.table.resizeRowsToContents()
        height = sum(self.table.rowHeight(row) for row in range(min(len(rows), TABLE_ROWS)))
        header, bar = self.table.horizontalHeader(), self.table.horizontalScrollBar()
        self.table.setFixedHeight(height + header.sizeHint().height() + bar.sizeHint().height() + 4)

    def _show_pictures(self, files: list[Path]) -> None:
        inner = QWidget()
        row = QHBoxLayout(inner)
        row.setContentsMargins(2, 2, 2, 2)
        shown = 0
        for file in files:
            pixels = QPixmap(str(file))
            if pixels.isNull():
                continue
            label = QLabel()
            label.setPixmap(
                pixels.scaled(
                    PICTURE_SIDE,
                    PICTURE_SIDE,
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            )
            label.setToolTip(f'<img src="{file}">')
            row.addWidget(label)
            shown += 1
        row.addStretch()
        self.strip.setWidget(inner)
        self.strip.setVisible(shown > 0)
        self.legend.setVisible(shown > 0)
