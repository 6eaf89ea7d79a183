"""Objects and the labels that show them, both ways: masks are drawn, and the brush's strokes become corrections."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial
from inspect import GEN_RUNNING, getgeneratorstate
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_medsam.document.compose import note_stroke, redraw, redraw_box
from napari_medsam.document.history import Found, History
from napari_medsam.document.objects import Part, PartKey
from napari_medsam.errors import MedSAMError
from napari_medsam.geometry import Box, union
from napari_medsam.image.field import whole_field
from napari_medsam.layers.geometry import shared_shape
from napari_medsam.layers.make import METADATA_KEY, add_masks
from napari_medsam.layers.masks import MaskLayer
from napari_medsam.layers.stroke import Stroke
from napari_medsam.layers.surroundings import Surroundings
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prediction import Prediction

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_medsam.layers.stage import Stage


SLICE_S = 0.025
"""So long masks are worked out before they are set, which takes about as long again, and the event loop is back."""

GATHER_S = 0.1  # masks that arrive within are drawn together, but for the first
GATHER_TIMES = 3.0  # of the time that drawing took is left to all else
IN_HAND_S = 0.05  # between two looks whether the user's stroke is over
OVER = object()


class Painting:
    """Draws the objects of one image into its labels and notes what the user painted.

    ``painted(ids)`` comes after masks of these objects are in the labels; ``masks_changed(MaskLayer | None)`` when
    another Labels layer (or none) takes the masks.
    """

    painted = Signal(tuple)
    masks_changed = Signal(object)

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._document = stage.document
        self._history = History(stage.document)
        self._queue: dict[PartKey, None] = {}
        self._gathering = False
        self._around: Surroundings | None = None  # for as long as no prediction changes
        self._drawing: Generator[None, None, None] | None = None

    # the layer ----------------------------------------------------------------------------------------------

    def fits(self, layer: Labels) -> bool:
        """Whether a Labels layer can take the masks: it has the shape, and pixels that can be set."""
        writable = not layer.multiscale and hasattr(layer.data, "__setitem__")
        return writable and tuple(layer.data.shape) == shared_shape(self._stage.image, self._stage.axes)

    def attach(self, layer: Labels, *, empty: bool = False) -> None:
        """Use a Labels layer of the image's shape; labels already in it are never handed out again.

        empty: it was made just now, so nobody need look for labels in it.
        """
        self.drop()
        self._stage.masks = masks = MaskLayer(layer, self._stage.axes)
        self._history.clear()
        self._document.reserve(0 if empty else masks.largest())
        masks.painted.connect(self._on_painted)
        masks.pressed.connect(self.finish)
        masks.refreshed.connect(self.finish)  # undone in the midst of it
        self.masks_changed.emit(masks)

    def ready(self) -> MaskLayer:
        """The labels that take the masks; a layer is made for them where there is none."""
        stage = self._stage
        if stage.masks is None:
            layer = add_masks(stage.viewer, stage.image, stage.axes)
            self.attach(layer, empty=True)
            self._draw_all()
            folder = layer.metadata[METADATA_KEY].get("folder")
            if folder is not None:
                stage.notice.emit(f"{layer.name}: too large for memory, so they are kept in {folder}.")
        assert stage.masks is not None
        return stage.masks

    def drop(self) -> None:
        self.finish()
        if self._stage.masks is not None:
            self._stage.masks.close()
            self._stage.masks = None
            self.masks_changed.emit(None)

    # objects into labels ------------------------------------------------------------------------------------

    def draw(self, parts: Iterable[PartKey]) -> None:
        """Put the newest predictions of some parts into the labels as one undoable step.

        A few are there at once. Many are drawn in slices, between which the event loop comes round; ``finish`` draws
        the rest. While the user's brush is on the labels nothing is drawn: it would become part of the stroke.
        """
        self._queue.update(dict.fromkeys(parts))
        if self._drawing is None and self._queue:
            self._drawing = self._slices()
            self._go_on(self._drawing)

    def arrived(self, part: PartKey) -> None:
        """Draw a new prediction: at once if it comes alone, else with those of the same moment."""
        self._around = None
        if self._gathering and (self._queue or self._more_awaited(part)):
            self._queue[part] = None
            return
        if not self._gathering:
            self._gathering = True
            self._stage.later(self._draw_gathered, GATHER_S)
        self.draw([part])

    def finish(self) -> None:
        """Draw all that is still to be drawn, now."""
        if self._drawing is None and self._queue:
            self._drawing = self._slices()
        if self._drawing is not None and getgeneratorstate(self._drawing) != GEN_RUNNING:
            for _ in self._drawing:
                pass
            self._drawing = None

    def _more_awaited(self, part: PartKey) -> bool:
        return any(other != part for other in self._stage.session.awaited(self._document))

    def _draw_gathered(self) -> None:
        """Draw what has arrived; the longer that takes, the more is gathered until the next time."""
        self._gathering = bool(self._queue)
        if self._gathering:
            start = time.perf_counter()
            self.draw(())
            self._stage.later(self._draw_gathered, GATHER_S + GATHER_TIMES * (time.perf_counter() - start))

    def _go_on(self, drawing: Generator[None, None, None]) -> None:
        if drawing is not self._drawing:
            return
        masks = self._stage.masks
        if masks is not None and masks.in_hand:
            self._stage.later(partial(self._go_on, drawing), IN_HAND_S)
            return
        more = False
        try:
            more = next(drawing, OVER) is not OVER
        finally:
            if more:
                self._stage.later(partial(self._go_on, drawing))
            else:
                self._drawing = None

    def _slices(self) -> Generator[None, None, None]:
        """Draw the queue as one step, and stop after each slice of it."""
        masks = self.ready()
        drawn: dict[PartKey, Box | None] = {}
        with masks.one_step():
            while self._queue:
                self._draw_slice(masks, drawn)
                if self._queue:
                    masks.flush()
                    yield
        self._around = None
        with self._document.batch():
            for key, extent in drawn.items():
                if self._document.get_part(*key) is not None:
                    self._document.update_part(*key, extent=extent)
        if drawn:
            if masks.layer.mode == "pan_zoom":
                masks.choose(next(reversed(drawn))[0])
            self.painted.emit(tuple(object_id for object_id, _ in drawn))

    def _draw_slice(self, masks: MaskLayer, drawn: dict[PartKey, Box | None]) -> None:
        """Draw parts of the queue for a while; ``drawn`` takes their new extents."""
        self._around = self._around or Surroundings(self._document)
        until = time.perf_counter() + SLICE_S
        while self._queue and time.perf_counter() < until:
            key = next(iter(self._queue))
            del self._queue[key]
            if self._document.get_part(*key) is None:
                continue
            if key in drawn:  # it was predicted anew since the slice before
                self._document.update_part(*key, extent=drawn[key])
            drawn[key] = self._draw(masks, self._document.part(*key), self._around)

    def restore(self, key: PartKey, earlier: MaskBefore) -> None:
        """Put back the mask that a part had before, predicted or painted, as one undoable step."""
        self.finish()
        masks = self.ready()
        if earlier.painted is None:
            part = self._document.update_part(*key, prediction=earlier.prediction, before=None)
            self._document.update_part(*key, extent=self._draw(masks, part))
        else:
            part, painted = self._document.part(*key), earlier.painted
            self._history.drawn(part)
            field = whole_field(masks.shape(part.plane))
            stand_in = Prediction(part.box, painted.row, painted.col, painted.mask, 0.0, "", field)
            self._redraw(masks, replace(part, prediction=stand_in))
            self._document.update_part(*key, prediction=earlier.prediction, extent=painted.box)

    def remove(self, key: PartKey) -> None:
        """Take a part and its mask away; undo of the labels may bring both back."""
        if self._document.get_part(*key) is not None:
            self.erase(key)
            self._document.remove_part(*key)

    def erase(self, key: PartKey) -> None:
        """Take a part's mask off the labels, before the part leaves its plane; what it covered shows again."""
        self.finish()
        self._stage.session.withdraw(self._document, key)
        part = self._document.part(*key)
        if self._stage.masks is not None:
            self._redraw(self._stage.masks, part, erase=True)
        self._history.deleted(part)

    def look(self) -> Found:
        """See what undo or redo in the labels meant for the objects."""
        self.finish()
        masks = self._stage.masks
        return Found() if masks is None else self._history.look(masks.read)

    def _draw(self, masks: MaskLayer, part: Part, around: Surroundings | None = None) -> Box | None:
        """Draw a part and return the extent it has then."""
        self._history.drawn(part)
        self._redraw(masks, part, around)
        patch = part.patch
        return patch.box if patch is not None and patch.mask.size else None

    def _draw_all(self) -> None:
        """Put the predictions into labels that are new; what was painted by hand went with the labels before them."""
        masks = self._stage.masks
        assert masks is not None
        with self._document.batch(), masks.one_step():
            for part in self._document.parts():
                if part.prompt is None and part.prediction is None:
                    self._document.remove_part(*part.key)
                elif part.prediction is not None:
                    self._document.update_part(*part.key, before=None, extent=None)
            around = Surroundings(self._document)
            for part in sorted(self._document.parts(), key=lambda entry: entry.turn):
                if part.prediction is not None:
                    self._document.update_part(*part.key, extent=self._draw(masks, part, around))

    # strokes into objects -----------------------------------------------------------------------------------

    def _on_painted(self, stroke: Stroke) -> None:
        """Take a stroke of the user's over: corrections, labels that are new objects, and objects on a new plane."""
        masks = self._stage.masks
        assert masks is not None
        self._history.edited()
        touched = masks.labels_touched(stroke)
        painted = masks.planes_of(stroke, self._stage.like_shown())
        with self._document.batch():
            for plane in dict.fromkeys((*painted, *self._document.planes())):
                box = masks.stroke_box(stroke, plane)
                for label in touched if box is not None else ():
                    assert box is not None
                    part = self._document.get_part(label, plane)
                    if part is not None:
                        self._note(masks, stroke, box, part)
                    elif plane in painted:
                        self._note_new(masks, stroke, box, Part(label, plane))
        self._stage.relabel()

    def _note_new(self, masks: MaskLayer, stroke: Stroke, box: Box, part: Part) -> None:
        """Take over what was painted with a label on a plane where it was no part of an object."""
        label, plane = part.key
        after = masks.after(stroke, plane, box)
        before = note_stroke(part, after, masks.before(stroke, plane, box), box)
        if before is None or not (after == label).any():
            return
        if label in self._document:
            self._document.add_part(replace(part, before=before.tight(), extent=box))
        else:
            class_id = self._stage.choices.class_id
            self._document.add(plane, None, class_id, label, before=before.tight(), extent=box)

    def _note(self, masks: MaskLayer, stroke: Stroke, box: Box, part: Part) -> None:
        """Take over what a stroke made of a part."""
        extent = union(part.extent, box)
        assert extent is not None
        before = part.before
        if before is None:
            after = masks.after(stroke, part.plane, extent)
            before = note_stroke(part, after, masks.before(stroke, part.plane, extent), extent)
        self._queue.pop(part.key, None)  # what is still to be drawn would undo the user's work
        if before is not None:
            self._stage.session.withdraw(self._document, part.key)
        self._document.update_part(*part.key, before=before, extent=extent)

    def _redraw(
        self,
        masks: MaskLayer,
        part: Part,
        around: Surroundings | None = None,
        *,
        erase: bool = False,
    ) -> None:
        box = redraw_box(part)
        if box is None:
            return
        inside = box.intersect(Box.of_plane(masks.shape(part.plane)))
        region = masks.current(part.plane, inside)
        if region.any() or erase or part.patch is None:
            others = (around or Surroundings(self._document)).of(part.plane, inside, region)
            drawn = redraw(region, inside, part, others, self._stage.choices.policy, erase=erase)
        else:  # on free ground it meets nobody, as most of many masks do
            drawn = part.patch.within(inside) * np.int64(part.object_id)
        try:
            masks.write(part.plane, inside, drawn, region)
        except MedSAMError as error:
            self._document.update_part(*part.key, problem=str(error))
            self._stage.notice.emit(str(error))
