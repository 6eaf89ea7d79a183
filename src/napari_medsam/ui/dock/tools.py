"""The dock's buttons to prompt with: boxes, clicks, and the next object to click on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget

from napari_medsam.model.api import knows_clicks

if TYPE_CHECKING:
    from napari_medsam.model.api import Model

CLICKS = (
    "Click on an object (plus), and on what is not part of it (minus: Alt or Ctrl, or key N). "
    "Clicks refine the object that is selected; without one, a plus click begins a new object"
)
LOADING = "The model is being loaded"


class PromptTools(QWidget):  # type: ignore[misc]
    """``boxes()``, ``clicks()``, ``next_object()`` say which button was pressed, ``live(bool)`` whether to preview."""

    boxes = Signal()
    live = Signal(bool)
    clicks = Signal()
    next_object = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.draw = QPushButton("Draw boxes")
        self.draw.setToolTip("Make the boxes and masks layers for this image and choose the rectangle tool")
        self.click = QPushButton("Click objects")
        self.next = QPushButton("New object")
        self.next.setToolTip("The next plus click begins another object (Enter in the clicks layer)")
        self.preview = QCheckBox("Preview")
        self.preview.setChecked(True)
        self.preview.setToolTip("Show the mask of a box while it is being dragged")
        self.preview.toggled.connect(self.live)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for button, signal in (
            (self.draw, self.boxes),
            (self.click, self.clicks),
            (self.next, self.next_object),
        ):
            row.addWidget(button)
            button.clicked.connect(signal)
        row.addWidget(self.preview)
        self.show_model(None)

    def show_model(self, model: Model | None) -> None:
        """Offer clicks where the model has learned them; None stands for one that is being loaded."""
        knows = knows_clicks(model)
        self.click.setEnabled(knows)
        self.next.setEnabled(knows)
        if knows:
            self.click.setToolTip(CLICKS)
        elif model is None:
            self.click.setToolTip(LOADING)
        else:
            self.click.setToolTip(
                f"{model.name} has learned boxes only: choose a model that knows clicks, lite-medsam for one"
            )
