"""A dock widget of napari's that scrolls, and that notices when the user closes it."""

from __future__ import annotations

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget


class Panel(QScrollArea):  # type: ignore[misc]
    """Shows its parts below one another; `close_session` is called when the user closes it."""

    closed = True  # until it is built: Qt sends events before

    def __init__(self, width: int) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setMinimumWidth(width)
        self.closed = False

    def show_parts(self, *parts: QWidget) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        for part in parts:
            column.addWidget(part)
        column.addStretch()
        self.setWidget(inner)

    def close_session(self) -> None:
        """End what this panel does; safe to call twice."""
        self.closed = True

    def changeEvent(self, event: QEvent | None) -> None:
        """napari takes a dock widget that the user closes out of its window and forgets it: end with that."""
        super().changeEvent(event)
        left = event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None
        if left and not self.closed:
            self.close_session()
            self.deleteLater()
