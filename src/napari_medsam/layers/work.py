"""One image layer at work: its document, the layer its prompts are drawn on and the layer its masks land in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medsam.document.objects import PlaneKey
from napari_medsam.errors import MedSAMError, PromptError
from napari_medsam.layers.clicking import Clicking
from napari_medsam.layers.geometry import on_screen
from napari_medsam.layers.make import METADATA_KEY, add_prompts
from napari_medsam.layers.masks import MaskLayer
from napari_medsam.layers.painting import Painting
from napari_medsam.layers.placement import Placement
from napari_medsam.layers.preview import Preview
from napari_medsam.layers.prompts import Changes, Drawn, PromptLayer
from napari_medsam.layers.stage import Choices, Later, Stage
from napari_medsam.segment.engine import MaskBefore

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

    from napari_medsam.geometry import Box
    from napari_medsam.session.session import Session

CLICK_PX = 4.0  # a press without a drag leaves a smaller shape than anybody can draw


class Work(Stage):
    """Ties the layers of one image to its document, both ways."""

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        session: Session,
        choices: Choices,
        later: Later,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__(viewer, image, session, choices, later, channel_axis)
        self.painting = Painting(self)
        self.clicking = Clicking(self, self.painting)
        self.preview = Preview(self)
        self.painting.masks_changed.connect(self._on_masks)
        self.painting.painted.connect(self.relabel)
        self.document.classes_changed.connect(self.relabel)

    def close(self) -> None:
        """Let go of the layers; they stay in the viewer."""
        self.drop_prompts()
        self.painting.drop()
        self.clicking.drop()
        for record in self.document:
            self.session.withdraw(self.document, record.id)

    # layers -------------------------------------------------------------------------------------------------

    def ready_layers(self) -> None:
        """Make the layers that are missing, and make the prompt layer ready to draw on."""
        self.painting.ready()
        if self.prompts is None:
            self.attach_prompts(add_prompts(self.viewer, self.image, self.axes))
        assert self.prompts is not None
        self.viewer.layers.selection.active = self.prompts.layer
        self.prompts.layer.mode = "add_rectangle"

    def ready_clicks(self) -> None:
        """Make the layers that are missing, and make the clicks layer ready to click on."""
        self.painting.ready()
        layer = self.clicking.ready()
        self.viewer.layers.selection.active = layer
        layer.mode = "add"
        self.clicking.say_target()

    def attach_prompts(self, layer: Shapes) -> None:
        """Use a Shapes layer, an own one or the user's: its shapes become objects at once."""
        self.drop_prompts()
        self.prompts = PromptLayer(layer)
        self.prompts.adopt()
        named = layer.metadata.get(METADATA_KEY, {}).get("classes", ())
        self.prompts.set_classes(self.document.name_classes([str(name) for name in named]))
        self.prompts.set_new(self.choices.class_id, self.document.class_of(self.choices.class_id).color)
        self.prompts.changed.connect(self.sync)
        self.prompts.picked.connect(self.clicking.pick)
        self.preview.attach(layer)
        for number in range(1, 10):
            layer.bind_key(str(number), lambda _, chosen=number: self.choose_class(chosen), overwrite=True)
        self.sync()

    def drop_prompts(self) -> None:
        self.preview.drop()
        if self.prompts is not None:
            self.prompts.close()
            self.prompts = None

    # prompts to masks ---------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Take over what happened to the shapes: new ones are decoded, moved ones anew, deleted ones erased."""
        if self.prompts is None:
            return
        changes = self.prompts.changes()
        new = self._take_added(changes)
        self._refuse(self.clicking.take_scribble(self.prompts))
        # One box just drawn has its colour, and its text comes with its mask: redrawing now would delay that.
        alone = len(changes.added) == 1 and not changes.moved and not changes.removed
        asked = [*new.values(), *self._take_moved(changes)]
        self.predict(asked)  # first of all: what follows takes napari some milliseconds
        if asked and alone:
            self.asked.emit()
        self.prompts.remember(new)
        for object_id in changes.removed:
            self.painting.remove(object_id)
        self.clicking.take_off(changes.removed)
        if new:
            self.clicking.choose(max(new.values()))
        if changes and not alone:
            self.relabel()

    def predict_all(self) -> None:
        """Decode every object again (another model or contrast); corrected ones keep their masks."""
        for record in self.document:
            self.document.outdate(record.id)
        self.predict([record.id for record in self.document if record.prompt and not record.corrected])

    def choose_class(self, class_id: int) -> None:
        """Make a class the current one; while shapes are being selected, not drawn, also that of the selection."""
        self.choices.class_id = class_id
        chosen = self.document.set_class(class_id)
        if self.prompts is None:
            return
        for object_id in () if self.prompts.drawing else self.prompts.selected():
            if object_id in self.document:
                self.document.update(object_id, class_id=class_id)
        self.prompts.set_new(class_id, chosen.color)
        self.relabel()
        self.document.classes_changed.emit()

    def select(self, object_id: int) -> None:
        """Select an object's shape, and its label for the brush."""
        if self.prompts is not None:
            self.prompts.select(object_id)
        if self.masks is not None:
            self.masks.choose(object_id)
        self.clicking.choose(object_id)

    # corrections --------------------------------------------------------------------------------------------

    def recheck(self) -> None:
        """See what undo or redo in the labels meant for the objects, and bring their boxes in line."""
        if self.masks is None:
            return
        found = self.painting.look()
        if self.prompts is not None:
            self.prompts.take_off(found.vanished)
            placement = self.placement(self.prompts.layer)
            boxes = {record.id: (record.box, record.plane) for record in found.revived}
            self.prompts.add(
                {number: placement.vertices_of(box, key) for number, (box, key) in boxes.items() if box}
            )
        self.clicking.take_off(found.vanished)
        self.clicking.show(*found.revived)
        if found.revived:
            self.clicking.choose(found.revived[-1].id)
        self.relabel()

    def _on_masks(self, masks: MaskLayer | None) -> None:
        if masks is not None:
            masks.chosen.connect(self.clicking.pick)

    # ---------------------------------------------------------------------------------------------------------

    def _take_added(self, changes: Changes) -> dict[int, int]:
        assert self.prompts is not None
        placement = self.placement(self.prompts.layer)
        rows: dict[int, int] = {}
        refused: list[int] = []
        for row, drawn in changes.added.items():
            try:
                key, box = self._place_new(row, drawn, placement)
            except MedSAMError as error:
                self.notice.emit(str(error))
                refused.append(row)
            else:
                rows[row] = self.document.add(key, box, drawn.class_id or self.choices.class_id).id
                self.clicking.fill_outline(rows[row], drawn, self.prompts)
        self._refuse(refused)
        return rows

    def _refuse(self, rows: list[int]) -> None:
        assert self.prompts is not None
        if rows:
            self.prompts.refuse(rows)
            # napari is still busy with the shape that was drawn last: take it off once it is done.
            self.later(self.prompts.sweep)

    def _place_new(self, row: int, drawn: Drawn, placement: Placement) -> tuple[PlaneKey, Box]:
        assert self.prompts is not None
        by_hand = self.prompts.drawing and row in self.prompts.layer.selected_data
        if by_hand and on_screen(drawn.vertices, self.prompts.layer, self.viewer) < CLICK_PX:
            raise PromptError(f"{self.image.name}: press and drag to draw a box.")
        return self._place(drawn, placement)

    def _take_moved(self, changes: Changes) -> list[int]:
        assert self.prompts is not None
        placement = self.placement(self.prompts.layer)
        asked = []
        for object_id, drawn in changes.moved.items():
            record = self.document[object_id]
            try:
                key, box = self._place(drawn, placement)
            except MedSAMError as error:
                self.notice.emit(str(error))
                self.session.withdraw(self.document, object_id)
                self.document.update(object_id, problem=str(error))
                continue
            if record.corrected and self.choices.policy == "corrected":
                self.notice.emit(
                    f"Object {object_id} keeps your corrected mask. Choose another overlap policy to predict it anew."
                )
                self.document.update(self.document.outdate(object_id).id, box=box)
                continue
            if key != record.plane:
                self.painting.erase(record)
                self.document.update(object_id, extent=None, prediction=None, points=(), masks_before=())
                self.clicking.take_off([object_id])
            masks_before = tuple(MaskBefore() for _ in self.document.outdate(object_id).points)
            self.document.update(object_id, plane=key, box=box, problem=None, masks_before=masks_before)
            asked.append(object_id)
        return asked

    def _place(self, drawn: Drawn, placement: Placement) -> tuple[PlaneKey, Box]:
        key, box = placement.box_of(drawn.vertices)
        return key, box.clip(self.plane(key).shape)
