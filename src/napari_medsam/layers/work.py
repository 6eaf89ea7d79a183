"""One image layer at work: its document, the layer its prompts are drawn on and the layer its masks land in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_medsam.document.objects import Document, PlaneKey
from napari_medsam.document.overlap import Policy
from napari_medsam.errors import MedSAMError, PromptError
from napari_medsam.geometry import Bounds
from napari_medsam.image.plane import Plane
from napari_medsam.layers.clicking import Clicking
from napari_medsam.layers.geometry import (
    WorkAxes,
    box_of,
    displayed_plane,
    layer_shape,
    neighbours,
    on_screen,
    plane_of,
    shared_shape,
    vertices_of,
    view_bounds,
)
from napari_medsam.layers.make import METADATA_KEY, add_clicks, add_masks, add_prompts
from napari_medsam.layers.masks import MaskLayer, Stroke
from napari_medsam.layers.painting import Painting, describe
from napari_medsam.layers.preview import Preview
from napari_medsam.layers.prompts import Changes, Drawn, PromptLayer
from napari_medsam.segment.engine import Earlier

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Points, Shapes
    from napari.viewer import Viewer

    from napari_medsam.geometry import Box
    from napari_medsam.session.session import Session

NEAR = 2  # steps of a slider that are embedded ahead
CLICK_PX = 4.0  # a press without a drag leaves a smaller shape than anybody can draw


@dataclass
class Choices:
    """What the dock's controls say; shared by all images of a viewer."""

    policy: Policy = "corrected"
    class_id: int = 1
    preview: bool = True


class Work:
    """Ties the layers of one image to its document, both ways.

    ``notice(text)`` is something to tell the user; ``painted(id)`` comes after an object's mask is in the labels;
    ``masks_changed(MaskLayer | None)`` when another Labels layer (or none) takes the masks; ``asked()`` when a box was
    drawn or clicked whose mask is now awaited; ``hint(text)`` is what to do next.
    """

    notice = Signal(str)
    painted = Signal(int)
    masks_changed = Signal(object)
    asked = Signal()
    hint = Signal(str)

    def __init__(
        self,
        viewer: Viewer,
        image: Image,
        session: Session,
        choices: Choices,
        channel_axis: int | None = None,
    ) -> None:
        self.viewer = viewer
        self.image = image
        self.session = session
        self.choices = choices
        self.axes = WorkAxes(image.ndim, channel_axis)
        self.shape = layer_shape(image)
        self.document = Document()
        self.prompts: PromptLayer | None = None
        self.masks: MaskLayer | None = None
        self.clicking = Clicking(self)
        self.preview = Preview(self)
        self.clicking.hint.connect(lambda text: self.hint.emit(text))
        self._planes: dict[PlaneKey, Plane] = {}
        self._painting = Painting(
            self.document,
            policy=lambda: choices.policy,
            class_id=lambda: choices.class_id,
            corrected=lambda object_id: session.withdraw(self.document, object_id),
            notice=self.notice.emit,
        )
        self.document.classes_changed.connect(self.relabel)

    def close(self) -> None:
        """Let go of the layers; they stay in the viewer."""
        self.drop_prompts()
        self.drop_masks()
        self.clicking.drop()
        for record in self.document:
            self.session.withdraw(self.document, record.id)

    # layers -------------------------------------------------------------------------------------------------

    def ready_layers(self) -> None:
        """Make the layers that are missing, and make the prompt layer ready to draw on."""
        self.ready_masks()
        if self.prompts is None:
            self.attach_prompts(add_prompts(self.viewer, self.image, self.axes))
        assert self.prompts is not None
        self.viewer.layers.selection.active = self.prompts.layer
        self.prompts.layer.mode = "add_rectangle"

    def ready_clicks(self) -> None:
        """Make the layers that are missing, and make the clicks layer ready to click on."""
        self.ready_masks()
        layer = self.show_clicks()
        self.viewer.layers.selection.active = layer
        layer.mode = "add"
        self.clicking.say_target()

    def show_clicks(self) -> Points:
        """The layer with the clicks, made where it is missing; the layer that is selected stays so."""
        if self.clicking.clicks is None:
            self.clicking.attach(add_clicks(self.viewer, self.image, self.axes))
        assert self.clicking.clicks is not None
        return self.clicking.clicks.layer

    def ready_masks(self) -> MaskLayer:
        if self.masks is None:
            layer = add_masks(self.viewer, self.image, self.axes)
            self.attach_masks(layer, empty=True)
            assert self.masks is not None
            self._painting.draw_all(self.masks)
            folder = layer.metadata[METADATA_KEY].get("folder")
            if folder is not None:
                self.notice.emit(f"{layer.name}: too large for memory, so they are kept in {folder}.")
        assert self.masks is not None
        return self.masks

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

    def attach_masks(self, layer: Labels, *, empty: bool = False) -> None:
        """Use a Labels layer of the image's shape; labels already in it are never handed out again.

        empty: it was made just now, so nobody need look for labels in it.
        """
        self.drop_masks()
        self.masks = MaskLayer(layer, self.axes)
        self._painting.history.clear()
        self.document.reserve(0 if empty else self.masks.largest())
        self.masks.painted.connect(self._on_painted)
        self.masks.chosen.connect(self.clicking.pick)
        self.masks_changed.emit(self.masks)

    def fits(self, layer: Labels) -> bool:
        """Whether a Labels layer can take the masks: it has the shape, and pixels that can be set."""
        writable = not layer.multiscale and hasattr(layer.data, "__setitem__")
        return writable and tuple(layer.data.shape) == shared_shape(self.image, self.axes)

    def drop_prompts(self) -> None:
        self.preview.drop()
        if self.prompts is not None:
            self.prompts.close()
            self.prompts = None

    def drop_masks(self) -> None:
        if self.masks is not None:
            self.masks.close()
            self.masks = None
            self.masks_changed.emit(None)

    # planes -------------------------------------------------------------------------------------------------

    def shown_plane(self) -> Plane:
        """The plane on screen. Raises ImageError when there is none; see ``geometry.displayed_plane``."""
        return self.plane(displayed_plane(self.viewer, self.image, self.axes))

    def following(self) -> list[Plane]:
        """The slices next to the one on screen, nearest first."""
        key = displayed_plane(self.viewer, self.image, self.axes)
        return [self.plane(near) for near in neighbours(key, self.image, self.axes, NEAR)]

    def view(self, plane: Plane) -> Bounds:
        """The part of a plane that is on screen, in its pixels."""
        return view_bounds(self.image, PlaneKey(plane.index[: self.image.ndim], plane.displayed))

    def plane(self, key: PlaneKey) -> Plane:
        if key not in self._planes:
            self._planes[key] = plane_of(self.image, key, self.axes)
        return self._planes[key]

    def forget_planes(self) -> None:
        """The image's pixels or transforms changed: boxes that still wait for a mask are asked anew."""
        self._planes.clear()
        self.session.forget()
        self.predict(self.session.awaited(self.document))

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
            self.remove_object(object_id)
        self.clicking.take_off(changes.removed)
        if new:
            self.clicking.choose(max(new.values()))
        if changes and not alone:
            self.relabel()

    def predict(self, object_ids: Iterable[int]) -> None:
        """Ask for the masks of some objects; each plane's are decoded together."""
        by_plane: dict[PlaneKey, list[int]] = {}
        for object_id in object_ids:
            by_plane.setdefault(self.document[object_id].plane, []).append(object_id)
        for key, members in by_plane.items():
            self.session.request(self.document, members, self.plane(key))

    def predict_all(self) -> None:
        """Decode every object again (another model or contrast); corrected ones keep their masks."""
        for record in self.document:
            self.document.outdate(record.id)
        self.predict([record.id for record in self.document if record.prompt and not record.corrected])

    def draw(self, object_id: int) -> None:
        """Put an object's newest prediction into the labels as one undoable step."""
        masks = self.ready_masks()
        self._painting.draw(masks, self.document[object_id])
        if masks.layer.mode == "pan_zoom":
            masks.choose(object_id)
        self.painted.emit(object_id)
        self.relabel()

    def restore_mask(self, object_id: int, earlier: Earlier) -> None:
        """Put back the mask that an object had before a click."""
        self._painting.restore(self.ready_masks(), object_id, earlier)
        self.painted.emit(object_id)

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

    def relabel(self) -> None:
        """Bring the text and colour of every shape up to date."""
        if self.prompts is None:
            return
        texts = {record.id: describe(self.document, record) for record in self.document}
        colors = {record.id: self.document.class_of(record.class_id).color for record in self.document}
        self.prompts.label(texts, colors, {record.id: record.class_id for record in self.document})

    # corrections --------------------------------------------------------------------------------------------

    def recheck(self) -> None:
        """See what undo or redo in the labels meant for the objects, and bring their boxes in line."""
        if self.masks is None:
            return
        found = self._painting.history.look(self.masks.read)
        if self.prompts is not None:
            self.prompts.take_off(found.vanished)
            for record in found.revived:
                if record.box is not None:
                    corners = vertices_of(record.box, record.plane, self.image, self.prompts.layer)
                    self.prompts.add(corners, record.id)
        self.clicking.take_off(found.vanished)
        for record in found.revived:
            self.clicking.show(record)
            self.clicking.choose(record.id)
        self.relabel()

    def _on_painted(self, stroke: Stroke) -> None:
        assert self.masks is not None
        self._painting.note(self.masks, stroke, set(self.document.planes()) | self._planes_shown())
        self.relabel()

    def _planes_shown(self) -> set[PlaneKey]:
        try:
            return {displayed_plane(self.viewer, self.image, self.axes)}
        except MedSAMError:
            return set()

    # ---------------------------------------------------------------------------------------------------------

    def _take_added(self, changes: Changes) -> dict[int, int]:
        assert self.prompts is not None
        rows: dict[int, int] = {}
        refused: list[int] = []
        for row, drawn in changes.added.items():
            try:
                key, box = self._place_new(row, drawn)
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
            QTimer.singleShot(0, self.prompts.sweep)

    def _place_new(self, row: int, drawn: Drawn) -> tuple[PlaneKey, Box]:
        assert self.prompts is not None
        by_hand = self.prompts.drawing and row in self.prompts.layer.selected_data
        if by_hand and on_screen(drawn.vertices, self.prompts.layer, self.viewer) < CLICK_PX:
            raise PromptError(f"{self.image.name}: press and drag to draw a box.")
        return self._place(drawn)

    def _take_moved(self, changes: Changes) -> list[int]:
        asked = []
        for object_id, drawn in changes.moved.items():
            record = self.document[object_id]
            try:
                key, box = self._place(drawn)
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
                self._painting.erase(self.masks, record)
                self.document.update(object_id, extent=None, prediction=None, points=(), trail=())
                self.clicking.take_off([object_id])
            trail = tuple(Earlier() for _ in self.document.outdate(object_id).points)
            self.document.update(object_id, plane=key, box=box, problem=None, trail=trail)
            asked.append(object_id)
        return asked

    def remove_object(self, object_id: int) -> None:
        """Take an object and its mask away; undo of the labels may bring both back."""
        if object_id not in self.document:
            return
        self.session.withdraw(self.document, object_id)
        record = self.document[object_id]
        self._painting.erase(self.masks, record)
        self._painting.history.deleted(record)
        self.document.remove(object_id)

    def _place(self, drawn: Drawn) -> tuple[PlaneKey, Box]:
        assert self.prompts is not None
        key, box = box_of(drawn.vertices, self.prompts.layer, self.viewer, self.image, self.axes)
        return key, box.clip(self.plane(key).shape)
