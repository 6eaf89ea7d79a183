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

from napari_medsam.document.compose import note_stroke, redraw, redraw_bounds
from napari_medsam.document.history import Found, History
from napari_medsam.document.objects import ObjectRecord, PlaneKey
from napari_medsam.errors import MedSAMError
from napari_medsam.geometry import Bounds, Patch, intersection, union
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

    ``painted(ids)`` comes after the masks of some objects are in the labels; ``masks_changed(MaskLayer | None)`` when
    another Labels layer (or none) takes the masks.
    """

    painted = Signal(tuple)
    masks_changed = Signal(object)

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._document = stage.document
        self._history = History(stage.document)
        self._queue: dict[int, None] = {}
        self._gathering = False
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

    def draw(self, object_ids: Iterable[int]) -> None:
        """Put the newest predictions of some objects into the labels as one undoable step.

        A few are there at once. Many are drawn in slices, between which the event loop comes round; ``finish`` draws
        the rest. While the user's brush is on the labels nothing is drawn: it would become part of the stroke.
        """
        self._queue.update(dict.fromkeys(object_ids))
        if self._drawing is None and self._queue:
            self._drawing = self._slices()
            self._go_on(self._drawing)

    def arrived(self, object_id: int) -> None:
        """Draw a new prediction: at once if it comes alone, else with those of the same moment."""
        if self._gathering and (self._queue or self._more_awaited(object_id)):
            self._queue[object_id] = None
            return
        if not self._gathering:
            self._gathering = True
            self._stage.later(self._draw_gathered, GATHER_S)
        self.draw([object_id])

    def finish(self) -> None:
        """Draw all that is still to be drawn, now."""
        if self._drawing is None and self._queue:
            self._drawing = self._slices()
        if self._drawing is not None and getgeneratorstate(self._drawing) != GEN_RUNNING:
            for _ in self._drawing:
                pass
            self._drawing = None

    def _more_awaited(self, object_id: int) -> bool:
        return any(other != object_id for other in self._stage.session.awaited(self._document))

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
        drawn: list[int] = []
        with masks.one_step():
            while self._queue:
                drawn += self._draw_slice(masks)
                if self._queue:
                    masks.flush()
                    yield
        if drawn:
            if masks.layer.mode == "pan_zoom":
                masks.choose(drawn[-1])
            self.painted.emit(tuple(drawn))

    def _draw_slice(self, masks: MaskLayer) -> list[int]:
        drawn, around = [], Surroundings(self._document)
        until = time.perf_counter() + SLICE_S
        while self._queue and time.perf_counter() < until:
            object_id = next(iter(self._queue))
            del self._queue[object_id]
            if object_id in self._document:
                self._draw(masks, self._document[object_id], around)
                drawn.append(object_id)
        return drawn

    def restore(self, object_id: int, earlier: MaskBefore) -> None:
        """Put back the mask that an object had before, predicted or painted, as one undoable step."""
        self.finish()
        masks = self.ready()
        if earlier.painted is None:
            self._draw(masks, self._document.update(object_id, prediction=earlier.prediction, before=None))
        else:
            record, painted = self._document[object_id], earlier.painted
            self._history.drawn(record)
            field = whole_field(masks.shape(record.plane))
            stand_in = Prediction(record.box, painted.row, painted.col, painted.mask, 0.0, "", field)
            self._redraw(masks, replace(record, prediction=stand_in))
            self._document.update(object_id, prediction=earlier.prediction, extent=painted.bounds)

    def remove(self, object_id: int) -> None:
        """Take an object and its mask away; undo of the labels may bring both back."""
        if object_id not in self._document:
            return
        self.finish()
        self._stage.session.withdraw(self._document, object_id)
        record = self._document[object_id]
        self.erase(record)
        self._history.deleted(record)
        self._document.remove(object_id)

    def erase(self, record: ObjectRecord) -> None:
        """Take an object's mask off the labels; what it covered shows again."""
        self.finish()
        if self._stage.masks is not None:
            self._redraw(self._stage.masks, self._document[record.id], erase=True)

    def look(self) -> Found:
        """See what undo or redo in the labels meant for the objects."""
        self.finish()
        masks = self._stage.masks
        return Found() if masks is None else self._history.look(masks.read)

    def _draw(self, masks: MaskLayer, record: ObjectRecord, around: Surroundings | None = None) -> None:
        self._history.drawn(record)
        self._redraw(masks, record, around)
        patch = record.patch
        extent = patch.bounds if patch is not None and patch.mask.size else None
        self._document.update(record.id, extent=extent)

    def _draw_all(self) -> None:
        """Put the predictions into labels that are new; what was painted by hand went with the labels before them."""
        masks = self._stage.masks
        assert masks is not None
        for record in self._document:
            if record.prompt is None:
                self._document.remove(record.id)
            elif record.prediction is not None:
                self._document.update(record.id, before=None, extent=None)
        around = Surroundings(self._document)
        with masks.one_step():
            for record in sorted(self._document, key=lambda entry: entry.turn):
                if record.prediction is not None:
                    self._draw(masks, record, around)

    # strokes into objects -----------------------------------------------------------------------------------

    def _on_painted(self, stroke: Stroke) -> None:
        """Take a stroke of the user's over: corrections of objects, and labels that are new objects."""
        masks = self._stage.masks
        assert masks is not None
        self._history.edited()
        touched = masks.labels_touched(stroke)
        for key in set(self._document.planes()) | self._stage.shown_keys():
            bounds = masks.stroke_bounds(stroke, key)
            if bounds is not None:
                for label in touched:
                    self._note(masks, stroke, key, bounds, label)
        self._stage.relabel()

    def _note(self, masks: MaskLayer, stroke: Stroke, key: PlaneKey, bounds: Bounds, label: int) -> None:
        record = self._document.get(label)
        if record is None:
            if (masks.after(stroke, key, bounds) == label).any():
                empty = Patch(bounds[0], bounds[1], np.zeros((0, 0), dtype=bool))
                self._document.add(key, None, self._stage.choices.class_id, label)
                self._document.update(label, before=empty, extent=bounds)
            return
        if record.plane != key:
            return
        extent = union(record.extent, bounds)
        assert extent is not None
        before = record.before
        if before is None:
            after = masks.after(stroke, key, extent)
            before = note_stroke(record, after, masks.before(stroke, key, extent), extent)
        self._queue.pop(label, None)  # what is still to be drawn would undo the user's work
        if before is not None:
            self._stage.session.withdraw(self._document, label)
        self._document.update(label, before=before, extent=extent)

    def _redraw(
        self,
        masks: MaskLayer,
        record: ObjectRecord,
        around: Surroundings | None = None,
        *,
        erase: bool = False,
    ) -> None:
        bounds = redraw_bounds(record)
        if bounds is None:
            return
        height, width = masks.shape(record.plane)
        inside = intersection(bounds, (0, 0, height, width))
        region = masks.current(record.plane, inside)
        others = (around or Surroundings(self._document)).of(record.plane, inside, region)
        drawn = redraw(region, inside, record, others, self._stage.choices.policy, erase=erase)
        try:
            masks.write(record.plane, inside, drawn)
        except MedSAMError as error:
            self._document.update(record.id, problem=str(error))
            self._stage.notice.emit(str(error))
