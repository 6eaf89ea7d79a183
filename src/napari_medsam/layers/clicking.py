"""The clicks of one image at work: which object each one is about, and what it does to that object's mask."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_medsam.document.click_edits import Change, as_it_stands, set_points
from napari_medsam.document.compose import ReadRegion
from napari_medsam.document.objects import ObjectRecord, PlaneKey
from napari_medsam.errors import MedSAMError, PromptError
from napari_medsam.layers.clicks import Click, ClickLayer
from napari_medsam.layers.make import add_clicks
from napari_medsam.model.api import knows_clicks
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prompt import Point
from napari_medsam.segment.strokes import clicks_along, inner_clicks

if TYPE_CHECKING:
    from napari.layers import Layer, Points

    from napari_medsam.layers.painting import Painting
    from napari_medsam.layers.prompts import Drawn, PromptLayer
    from napari_medsam.layers.stage import Stage


Said = tuple[tuple[tuple[float, ...], bool], ...]


class Clicking:
    """Ties a Points layer to the document of a stage, both ways.

    ``target`` is the object that the next click is about; None: a plus click begins a new one. ``hint(text)`` says
    which that is.
    """

    hint = Signal(str)

    def __init__(self, stage: Stage, painting: Painting) -> None:
        self.clicks: ClickLayer | None = None
        self.target: int | None = None
        self._stage = stage
        self._painting = painting
        self._seen: dict[int, Said] = {}

    def attach(self, layer: Points) -> None:
        """Use a Points layer that was made for clicks; those that the document has are shown in it."""
        self.drop()
        self.clicks = ClickLayer(layer)
        self.show(*self._stage.document)
        self.clicks.changed.connect(self.sync)
        self.clicks.finished.connect(self.begin_next)
        self.clicks.undone.connect(self.undo)
        self.clicks.sign_changed.connect(lambda _: self.say_target())

    def ready(self) -> Points:
        """The layer with the clicks, made where it is missing; the layer that is selected stays so."""
        if self.clicks is None:
            self.attach(add_clicks(self._stage.viewer, self._stage.image, self._stage.axes))
        assert self.clicks is not None
        return self.clicks.layer

    def drop(self) -> None:
        if self.clicks is not None:
            self.clicks.close()
            self.clicks = None

    def choose(self, object_id: int | None) -> None:
        """Let the next clicks be about an object; None: about a new one."""
        if object_id != self.target:
            self.target = object_id
            self.say_target()

    def pick(self, object_id: int) -> None:
        """The user picked a shape or a label: clicks and the brush are about its object from now on, if it is one."""
        if object_id in self._stage.document:
            if self._stage.masks is not None:
                self._stage.masks.choose(object_id)
            self.choose(object_id)

    def begin_next(self) -> None:
        """The next click on an object begins it."""
        self.target = None
        self.say_target()

    def say_target(self) -> None:
        """Tell what a click does now, while there is a layer to click on."""
        if self.clicks is None:
            return
        sign, other = ("plus", "minus") if self.clicks.positive else ("minus", "plus")
        keys = f"Click: {sign}, with Alt or Ctrl: {other} (keys P and N)."
        if self.target is None:
            self.hint.emit(f"A plus click begins a new object. {keys}")
        else:
            self.hint.emit(
                f"Clicks refine object {self.target}. {keys} Enter: next object. Ctrl+Z: undo a click."
            )

    def undo(self) -> None:
        """Take the newest click back; its object gets the mask it had before."""
        object_id = None if self.clicks is None else self.clicks.take_last()
        if object_id is not None and object_id in self._stage.document:
            self.choose(object_id)

    def show(self, *records: ObjectRecord) -> None:
        """Show the clicks that objects of the document have."""
        clicked = [record for record in records if record.points]
        if self.clicks is None or not clicked:
            return
        placement = self._stage.placement(self.clicks.layer)
        self.clicks.add(
            {
                record.id: list(
                    zip(
                        placement.places_of(
                            [(point.row, point.col) for point in record.points], record.plane
                        ),
                        [point.positive for point in record.points],
                        strict=True,
                    )
                )
                for record in clicked
            }
        )
        shown = self.clicks.clicks()
        self._seen.update({record.id: _said(shown[record.id]) for record in clicked})

    def take_off(self, object_ids: Iterable[int]) -> None:
        """Objects are gone from the document, or their clicks mean nothing any more."""
        gone = set(object_ids)
        for object_id in gone:
            self._seen.pop(object_id, None)
        if self.clicks is not None:
            self.clicks.take_off(gone)
        if self.target in gone:
            self.begin_next()

    def take_scribble(self, drawn: PromptLayer) -> list[int]:
        """Begin an object with clicks along a path that was drawn just now; the rows that this leaves to be taken off.

        Without a decoder that knows clicks the path stays.
        """
        stage, scribble = self._stage, drawn.scribble()
        if scribble is None:
            return []
        if not knows_clicks(stage.session.model):
            stage.notice.emit(f"{stage.image.name}: a path becomes clicks, which this model does not know.")
            return []
        row, vertices = scribble
        try:
            key, places = self._places(vertices, drawn.layer)
            points = [point for point in clicks_along(places) if point.inside(stage.plane(key).shape)]
            if not points:
                raise PromptError(f"{stage.image.name}: the path lies outside the image. Draw it inside.")
        except MedSAMError as error:
            stage.notice.emit(str(error))
        else:
            record = stage.document.add(key, None, stage.choices.class_id)
            self._seed(record.id, points)
            stage.predict([record.id])
            self.choose(record.id)
        return [row]

    def fill_outline(self, object_id: int, shape: Drawn, drawn: PromptLayer) -> None:
        """Give the object of a polygon some clicks inside it, where the decoder knows clicks."""
        stage = self._stage
        if shape.kind == "polygon" and knows_clicks(stage.session.model):
            key, places = self._places(shape.vertices, drawn.layer)
            plane = stage.plane(key)
            self._seed(object_id, [point for point in inner_clicks(places) if point.inside(plane.shape)])

    def _seed(self, object_id: int, points: list[Point]) -> None:
        """Give an object its first clicks; it is not asked for yet."""
        set_points(self._stage.document, object_id, tuple(points), MaskBefore())
        if self.clicks is not None:
            self.show(self._stage.document[object_id])
        else:  # napari is still busy with the shape
            self._stage.later(self.ready)

    def _places(
        self, vertices: npt.NDArray[np.float64], layer: Layer
    ) -> tuple[PlaneKey, list[tuple[float, float]]]:
        placement = self._stage.placement(layer)
        found = [placement.point_of(vertex) for vertex in vertices]
        return found[0][0], [place for _, place in found]

    # what the user did to the points ------------------------------------------------------------------------

    def sync(self) -> None:
        """Take over what happened to the points: new, moved and deleted ones change the masks of their objects."""
        assert self.clicks is not None
        new, clicks = self.clicks.new(), self.clicks.clicks()
        owners = self._take_new(new, clicks)
        asked = []
        for object_id in dict.fromkeys((*clicks, *(r.id for r in self._stage.document if r.points))):
            own = clicks.get(object_id, [])
            if object_id not in self._stage.document or self._seen.get(object_id) == _said(own):
                continue  # another plane's may not even have a place in this view
            self._seen[object_id] = _said(own)
            if self._take(object_id, own):
                asked.append(object_id)
        self._stage.predict(asked)  # first of all: what follows takes napari some milliseconds
        if asked:
            self._stage.asked.emit()
        self.clicks.assign(owners, new)
        if new:  # napari is still busy with the point that was added last
            self._stage.later(self.clicks.sweep)
        else:
            self._stage.relabel()

    def _take_new(self, new: list[Click], clicks: dict[int, list[Click]]) -> dict[int, int]:
        """Find the object of each new click and add it to that object's clicks."""
        owners: dict[int, int] = {}
        for click in new:
            try:
                owners[click.row] = self._owner(click)
            except MedSAMError as error:
                self._stage.notice.emit(str(error))
            else:
                clicks.setdefault(owners[click.row], []).append(click)
        return owners

    def _owner(self, click: Click) -> int:
        key, _ = self._place(click)
        record = None if self.target is None else self._stage.document.get(self.target)
        if record is None or record.plane != key:
            if not click.positive:
                raise PromptError(
                    f"{self._stage.image.name}: a minus click corrects an object. Begin one with a plus click."
                )
            record = self._stage.document.add(key, None, self._stage.choices.class_id)
            self.choose(record.id)
        elif record.prompt is None and not click.positive:
            raise PromptError(
                f"Object {record.id} was painted and has no box. Make a plus click on it before a minus click."
            )
        return record.id

    def _take(self, object_id: int, clicks: list[Click]) -> bool:
        """Give an object the clicks it has now; whether it is to be decoded."""
        stage, record = self._stage, self._stage.document[object_id]
        points = []
        for click in clicks:
            try:
                key, point = self._place(click)
                if key != record.plane:
                    raise PromptError(f"{point} left the plane of object {object_id}. Move it back.")
            except MedSAMError as error:
                stage.notice.emit(str(error))
                return False
            points.append(point)
        if tuple(points) == record.points:
            return False
        self._painting.finish()
        record = stage.document[object_id]
        open_before = object_id in stage.session.awaited(stage.document)
        standing = as_it_stands(record, self._reader(record))
        return self._do(
            object_id, set_points(stage.document, object_id, tuple(points), standing), open_before
        )

    def _do(self, object_id: int, change: Change, open_before: bool) -> bool:
        """Do what changed clicks ask for; whether the object is to be decoded."""
        stage = self._stage
        if change.gone:
            self._painting.remove(object_id)
            self.take_off([object_id])
            return False
        if change.kept:
            stage.notice.emit(f"Object {object_id} keeps your corrected mask.")
            return False
        record = stage.document[object_id]
        if change.restore is not None:
            stage.session.withdraw(stage.document, object_id)
            self._painting.restore(object_id, change.restore)
            # The sharper mask of that earlier prompt may never have come.
            return open_before and change.restore.painted is None
        if record.prompt is None:
            stage.session.withdraw(stage.document, object_id)
            problem = f"Object {object_id} has no box and no click on it (plus). Click on it."
            stage.document.update(object_id, problem=problem)
            stage.notice.emit(problem)
            return False
        return change.ask

    def _place(self, click: Click) -> tuple[PlaneKey, Point]:
        assert self.clicks is not None
        stage = self._stage
        key, (row, col) = stage.placement(self.clicks.layer).point_of(click.place)
        return key, Point(row, col, click.positive).check(stage.plane(key).shape)

    def _reader(self, record: ObjectRecord) -> ReadRegion | None:
        masks = self._stage.masks
        return None if masks is None else partial(masks.read, record.plane)


def _said(clicks: Iterable[Click]) -> Said:
    """The places and signs of an object's clicks, to tell whether they changed."""
    return tuple((tuple(click.place.tolist()), click.positive) for click in clicks)
