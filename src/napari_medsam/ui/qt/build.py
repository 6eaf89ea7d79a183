"""Widgets and layouts made in one line."""

from __future__ import annotations

from typing import TypeAlias

from qtpy.QtWidgets import QBoxLayout, QHBoxLayout, QLayout, QPushButton, QSpinBox, QVBoxLayout, QWidget

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


def _fill(layout: QBoxLayout, parts: tuple[Part, ...], within: QWidget | None) -> QBoxLayout:
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addLayout(part) if isinstance(part, QLayout) else layout.addWidget(part)
    if within is not None:
        within.setLayout(layout)
    return layout
