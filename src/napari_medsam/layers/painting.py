"""Objects and the labels that show them, both ways: masks are drawn, and the brush's strokes become corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.document.compose import note_stroke, redraw, redraw_bounds
from napari_medsam.document.history import History
from napari_medsam.document.objects import Document, ObjectRecord, PlaneKey
from napari_medsam.errors import MedSAMError
from napari_medsam.geometry import Bounds, Patch, intersection, union
from napari_medsam.image.field import whole_field
from napari_medsam.layers.masks import MaskLayer, Stroke
from napari_medsam.segment.engine import Earlier
from napari_medsam.segment.prediction import Prediction

if TYPE_CHECKING:
    from napari_medsam.document.overlap import Policy


class Painting:
    """Draws the objects of one document and notes what the user painted.

    ``policy()`` and ``class_id()`` give what is chosen now; ``corrected(id)`` is called for an object that the user has
    painted on, ``notice(text)`` when a mask cannot be drawn.
    """

    def __init__(
        self,
        document: Document,
        *,
        policy: Callable[[], Policy],
        class_id: Callable[[], int],
        corrected: Callable[[int], None],
        notice: Callable[[str], None],
    ) -> None:
        self.history = History(document)
        self._document = document
        self._policy = policy
        self._class_id = class_id
        self._corrected = corrected
        self._notice = notice

    def draw(self, masks: MaskLayer, record: ObjectRecord) -> None:
        """Put an object's newest prediction into the labels as one undoable step."""
        self.history.drawn(record)
        self._redraw(masks, record)
        patch = record.patch
        extent = patch.bounds if patch is not None and patch.mask.size else None
        self._document.update(record.id, extent=extent)

    def restore(self, masks: MaskLayer, object_id: int, earlier: Earlier) -> None:
        """Put back the mask that an object had before, predicted or painted, as one undoable step."""
        if earlier.painted is None:
            self.draw(masks, self._document.update(object_id, prediction=earlier.prediction, before=None))
            return
        record, painted = self._document[object_id], earlier.painted
        self.history.drawn(record)
        field = whole_field(masks.shape(record.plane))
        stand_in = Prediction(record.box, painted.row, painted.col, painted.mask, 0.0, "", field)
        self._redraw(masks, replace(record, prediction=stand_in))
        self._document.update(object_id, prediction=earlier.prediction, extent=painted.bounds)

    def draw_all(self, masks: MaskLayer) -> None:
        """Put the predictions into labels that are new; what was painted by hand went with the labels before them."""
        for record in sorted(self._document, key=lambda entry: entry.turn):
            if record.prompt is None:
                self._document.remove(record.id)
            elif record.prediction is not None:
                self.draw(masks, self._document.update(record.id, before=None, extent=None))

    def erase(self, masks: MaskLayer | None, record: ObjectRecord) -> None:
        """Take an object's mask off the labels; what it covered shows again."""
        if masks is not None:
            self._redraw(masks, record, erase=True)

    def note(self, masks: MaskLayer, stroke: Stroke, planes: Iterable[PlaneKey]) -> None:
        """Take a stroke of the user's over: corrections of objects, and labels that are new objects."""
        self.history.edited()
        touched = masks.labels_touched(stroke)
        for key in planes:
            bounds = masks.stroke_bounds(stroke, key)
            if bounds is not None:
                for label in touched:
                    self._note(masks, stroke, key, bounds, label)

    def _note(self, masks: MaskLayer, stroke: Stroke, key: PlaneKey, bounds: Bounds, label: int) -> None:
        record = self._document.get(label)
        if record is None:
            if (masks.after(stroke, key, bounds) == label).any():
                empty = Patch(bounds[0], bounds[1], np.zeros((0, 0), dtype=bool))
                self._document.add(key, None, self._class_id(), label)
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
        if before is not None:
            self._corrected(label)
        self._document.update(label, before=before, extent=extent)

    def _redraw(self, masks: MaskLayer, record: ObjectRecord, *, erase: bool = False) -> None:
        bounds = redraw_bounds(record)
        if bounds is None:
            return
        height, width = masks.shape(record.plane)
        inside = intersection(bounds, (0, 0, height, width))
        others = self._document.in_plane(record.plane)
        region = masks.read(record.plane, inside)
        drawn = redraw(region, inside, record, others, self._policy(), erase=erase)
        try:
            masks.write(record.plane, inside, drawn)
        except MedSAMError as error:
            self._document.update(record.id, problem=str(error))
            self._notice(str(error))


def describe(document: Document, record: ObjectRecord) -> str:
    """One line about an object: id, class, predicted IoU or what went wrong."""
    name = document.class_of(record.class_id).name
    if record.problem:
        return f"{record.id} {name} !"
    if record.corrected:
        return f"{record.id} {name} (corrected)"
    return f"{record.id} {name}" + (f" {record.prediction.iou:.2f}" if record.prediction else " ...")
