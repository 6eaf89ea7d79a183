"""One image layer at work: its document, the layer its prompts are drawn on and the layer its masks land in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from napari_medsam.document.objects import Part, PartKey, PlaneKey
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
        self.painting.painted.connect(self.relabel_soon)
        self.document.classes_changed.connect(self.relabel)

    def close(self) -> None:
        """Let go of the layers; they stay in the viewer."""
        self.drop_prompts()
        self.painting.drop()
        self.clicking.drop()
        for part in self.document.parts():
            self.session.withdraw(self.document, part.key)

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
        for key in changes.removed:
            self.painting.remove(key)
        self.clicking.take_off(changes.removed)
        if new:
            self.clicking.choose(max(object_id for object_id, _ in new.values()))
        if changes and not alone:
            self.relabel()

    def add_parts(self, parts: Iterable[Part]) -> None:
        """Let objects of the document appear on more planes; those with a box are shown and decoded.

        Raises KeyError or ValueError as ``Document.add_part`` does.
        """
        with self.document.batch():
            added = [self.document.add_part(part) for part in parts]
        if self.prompts is None:
            self.attach_prompts(add_prompts(self.viewer, self.image, self.axes))
        self._show_boxes(added)
        self.predict([part.key for part in added if part.prompt is not None])
        self.relabel_soon()

    def predict_all(self) -> None:
        """Decode every object again (another model or contrast); corrected ones keep their masks."""
        with self.document.batch():
            for part in self.document.parts():
                self.document.outdate(*part.key)
        self.predict([part.key for part in self.document.parts() if part.prompt and not part.corrected])

    def choose_class(self, class_id: int) -> None:
        """Make a class the current one; while shapes are being selected, not drawn, also that of the selection."""
        self.choices.class_id = class_id
        chosen = self.document.set_class(class_id)
        if self.prompts is None:
            return
        for object_id in () if self.prompts.drawing else self.prompts.selected():
            if object_id in self.document:
                self.document.classify(object_id, class_id)
        self.prompts.set_new(class_id, chosen.color)
        self.relabel()
        self.document.classes_changed.emit()

    def select(self, object_id: int) -> None:
        """Select an object's shape, and its label for the brush; clicks are about it from now on."""
        if self.prompts is not None:
            self.prompts.select(object_id, self.shown_key())
        if self.masks is not None:
            self.masks.choose(object_id)
        self.clicking.choose(object_id, picked=True)

    # corrections --------------------------------------------------------------------------------------------

    def recheck(self) -> None:
        """See what undo or redo in the labels meant for the objects, and bring their boxes in line."""
        if self.masks is None:
            return
        found = self.painting.look()
        if self.prompts is not None:
            self.prompts.take_off(found.vanished)
            self._show_boxes(found.revived)
        self.clicking.take_off(found.vanished)
        self.clicking.show(*found.revived)
        if found.revived:
            self.clicking.choose(found.revived[-1].object_id)
        self.relabel()

    def _show_boxes(self, parts: Iterable[Part]) -> None:
        assert self.prompts is not None
        placement = self.placement(self.prompts.layer)
        boxes = {part.key: part.box for part in parts if part.box is not None}
        self.prompts.add({key: placement.vertices_of(box, key[1]) for key, box in boxes.items()})

    def _on_masks(self, masks: MaskLayer | None) -> None:
        if masks is not None:
            masks.chosen.connect(self.clicking.pick)

    # ---------------------------------------------------------------------------------------------------------

    def _take_added(self, changes: Changes) -> dict[int, PartKey]:
        assert self.prompts is not None
        placement = self.placement(self.prompts.layer)
        rows: dict[int, PartKey] = {}
        refused: list[int] = []
        for row, drawn in changes.added.items():
            try:
                plane, box = self._place_new(row, drawn, placement)
            except MedSAMError as error:
                self.notice.emit(str(error))
                refused.append(row)
            else:
                class_id = drawn.class_id or self.choices.class_id
                rows[row] = self.document.add(plane, box, class_id).id, plane
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

    def _take_moved(self, changes: Changes) -> list[PartKey]:
        assert self.prompts is not None
        placement = self.placement(self.prompts.layer)
        asked = []
        for key, drawn in changes.moved.items():
            part = self.document.part(*key)
            try:
                plane, box = self._place(drawn, placement)
                if plane != part.plane and self.document.get_part(part.object_id, plane) is not None:
                    raise PromptError(
                        f"Object {part.object_id} is on that plane already. Move its shape back, or copy it: "
                        "a copy is an object of its own."
                    )
            except MedSAMError as error:
                self.notice.emit(str(error))
                self.session.withdraw(self.document, key)
                self.document.update_part(*key, problem=str(error))
                continue
            if part.corrected and self.choices.policy == "corrected":
                self.notice.emit(
                    f"Object {part.object_id} keeps your corrected mask. "
                    "Choose another overlap policy to predict it anew."
                )
                self.document.outdate(*key)
                self.document.update_part(*key, box=box)
                continue
            if plane != part.plane:
                part = self._move(part, plane)
            masks_before = tuple(MaskBefore() for _ in self.document.outdate(*part.key).points)
            self.document.update_part(*part.key, box=box, problem=None, masks_before=masks_before)
            asked.append(part.key)
        return asked

    def _move(self, part: Part, plane: PlaneKey) -> Part:
        """Take a part to another plane, where nothing but its box and its corrections means anything yet."""
        assert self.prompts is not None
        self.painting.erase(part.key)
        moved = self.document.move_part(*part.key, plane)
        self.prompts.rename(part.key, plane)
        self.clicking.take_off([part.key])
        return self.document.update_part(*moved.key, extent=None, prediction=None, points=(), masks_before=())

    def _place(self, drawn: Drawn, placement: Placement) -> tuple[PlaneKey, Box]:
        plane, box = placement.box_of(drawn.vertices)
        return plane, box.clip(self.plane(plane).shape)
