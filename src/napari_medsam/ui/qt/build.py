"""Widgets and layouts made in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from qtpy.QtWidgets import (
    QAbstractItemView,
    QBoxLayout,
    QHBoxLayout,
    QHeaderView,
    QLayout,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)

Part: TypeAlias = QWidget | QLayout


def hbox(*parts: Part, within: QWidget | None = None) -> QHBoxLayout:
    """The parts side by side, without margins; as the layout of a widget if one is given."""
    return _fill(QHBoxLayout(), parts, within)


def vbox(*parts: Part, within: QWidget | None = None) -> QVBoxLayout:
    """The parts below one another, without margins; as the layout of a widget if one is given."""
    return _fill(QVBoxLayout(), parts, within)


def button(text: str, tip: str = "") -> QPushButton:
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def spin_box(low: int, high: int, value: int, tip: str) -> QSpinBox:
    """A box for a whole number that reports a number only once it is typed completely."""
    box = QSpinBox()
    box.setRange(low, high)
    box.setValue(value)
    box.setKeyboardTracking(False)
    box.setToolTip(tip)
    return box


def row_table(table: QTableWidget, headings: Sequence[str]) -> QTableWidget:
    """Make a table of rows that are selected as a whole; its columns share the width."""
    table.setColumnCount(len(headings))
    table.setHorizontalHeaderLabels(list(headings))
    table.verticalHeader().hide()
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
    return table


def _fill(layout: QBoxLayout, parts: tuple[Part, ...], within: QWidget | None) -> QBoxLayout:
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addLayout(part) if isinstance(part, QLayout) else layout.addWidget(part)
    if within is not None:
        within.setLayout(layout)
    return layout
