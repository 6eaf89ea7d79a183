"""The dock's buttons to prompt with: boxes, clicks, and the next object to click on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QWidget

from napari_medsam.model.api import knows_clicks
from napari_medsam.ui.qt.build import button, hbox

if TYPE_CHECKING:
    from napari_medsam.model.api import Model
    from napari_medsam.ui.desk.controller import Controller

CLICKS = (
    "Click on an object (plus), and on what is not part of it (minus: Alt or Ctrl, or key N). "
    "Clicks refine the object that is selected; without one, a plus click begins a new object"
)
LOADING = "The model is being loaded"


class PromptTools(QWidget):  # type: ignore[misc]
    """Buttons that choose a tool, and whether the mask of a box is previewed while it is dragged."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.draw = button(
            "Draw boxes", "Make the boxes and masks layers for this image and choose the rectangle tool"
        )
        self.click = button("Click objects")
        self.next = button(
            "New object", "The next plus click begins another object (Enter in the clicks layer)"
        )
        self.preview = QCheckBox("Preview")
        self.preview.setChecked(True)
        self.preview.setToolTip("Show the mask of a box while it is being dragged")
        hbox(self.draw, self.click, self.next, self.preview, within=self)
        self.draw.clicked.connect(lambda: controller.draw_boxes())
        self.click.clicked.connect(lambda: controller.click_objects())
        self.next.clicked.connect(self._begin_next)
        self.preview.toggled.connect(partial(setattr, controller.choices, "preview"))
        controller.session.model_changed.connect(self._show_model)
        controller.configured.connect(lambda: self._show_model(controller.session.model))
        self._show_model(None)

    def _begin_next(self) -> None:
        if self._controller.work is not None:
            self._controller.work.clicking.begin_next()

    def _show_model(self, model: Model | None) -> None:
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
                f"{model.name} has learned boxes only. Choose a model that knows clicks, such as lite-medsam"
            )
