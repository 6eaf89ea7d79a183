"""The clicks of one image at work: which object each one is about, and what it does to that object's mask."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_medsam.document.click_edits import ClickEdit, as_it_stands, set_points
from napari_medsam.document.compose import ReadRegion
from napari_medsam.document.objects import Part, PartKey, PlaneKey
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
    which that is. An object that the user picked stays the target on every plane: a plus click on a plane where it
    has no part begins one. One that was only drawn or clicked last is the target on its own planes; elsewhere a plus
    click begins a new object, as slices are often gone through one by one.
    """

    hint = Signal(str)

    def __init__(self, stage: Stage, painting: Painting) -> None:
        self.clicks: ClickLayer | None = None
        self.target: int | None = None
        self._stage = stage
        self._painting = painting
        self._picked = False
        self._seen: dict[PartKey, Said] = {}

    def attach(self, layer: Points) -> None:
        """Use a Points layer that was made for clicks; those that the document has are shown in it."""
        self.drop()
        self.clicks = ClickLayer(layer)
        self.show(*self._stage.document.parts())
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

    def choose(self, object_id: int | None, *, picked: bool = False) -> None:
        """Let the next clicks be about an object; None: about a new one. picked: by the user, so on every plane."""
        if (object_id, picked) != (self.target, self._picked):
            self.target, self._picked = object_id, picked
            self.say_target()

    def pick(self, object_id: int) -> None:
        """The user picked a shape or a label: clicks and the brush are about its object from now on, if it is one."""
        if object_id in self._stage.document:
            if self._stage.masks is not None:
                self._stage.masks.choose(object_id)
            self.choose(object_id, picked=True)

    def begin_next(self) -> None:
        """The next click on an object begins it."""
        self.target, self._picked = None, False
        self.say_target()

    def say_target(self) -> None:
        """Tell what a click does now, while there is a layer to click on."""
        if self.clicks is None:
            return
        sign, other = ("plus", "minus") if self.clicks.positive else ("minus", "plus")
        keys = f"Click: {sign}, with Alt or Ctrl: {other} (keys P and N)."
        if self.target is None:
            self.hint.emit(f"A plus click begins a new object. {keys}")
            return
        where = ""
        if len(self._stage.shape) > 2 and self._picked:
            where = " Where it is not yet, a plus click adds it."
        elif len(self._stage.shape) > 2:
            where = " On another slice a plus click begins a new one; select this one to go on with it there."
        self.hint.emit(
            f"Clicks refine object {self.target}.{where} {keys} Enter: next object. Ctrl+Z: undo a click."
        )

    def undo(self) -> None:
        """Take the newest click back; its object gets the mask it had before."""
        part = None if self.clicks is None else self.clicks.take_last()
        if part is not None and part[0] in self._stage.document and part[0] != self.target:
            self.choose(part[0])

    def show(self, *parts: Part) -> None:
        """Show the clicks that parts in the document have."""
        clicked = [part for part in parts if part.points]
        if self.clicks is None or not clicked:
            return
        placement = self._stage.placement(self.clicks.layer)
        self.clicks.add(
            {
                part.key: list(
                    zip(
                        placement.places_of([(point.row, point.col) for point in part.points], part.plane),
                        [point.positive for point in part.points],
                        strict=True,
                    )
                )
                for part in clicked
            }
        )
        shown = self.clicks.clicks()
        self._seen.update({part.key: _said(shown[part.key]) for part in clicked})

    def take_off(self, parts: Iterable[PartKey]) -> None:
        """Parts are gone from the document, or their clicks mean nothing any more."""
        gone = set(parts)
        for key in gone:
            self._seen.pop(key, None)
        if self.clicks is not None:
            self.clicks.take_off(gone)
        if self.target is not None and self.target not in self._stage.document:
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
            plane, places = self._places(vertices, drawn.layer)
            points = [point for point in clicks_along(places) if point.inside(stage.plane(plane).shape)]
            if not points:
                raise PromptError(f"{stage.image.name}: the path lies outside the image. Draw it inside.")
        except MedSAMError as error:
            stage.notice.emit(str(error))
        else:
            object_id = stage.document.add(plane, None, stage.choices.class_id).id
            self._seed((object_id, plane), points)
            stage.predict([(object_id, plane)])
            self.choose(object_id)
        return [row]

    def fill_outline(self, key: PartKey, shape: Drawn, drawn: PromptLayer) -> None:
        """Give the part of a polygon some clicks inside it, where the decoder knows clicks."""
        stage = self._stage
        if shape.kind == "polygon" and knows_clicks(stage.session.model):
            plane, places = self._places(shape.vertices, drawn.layer)
            size = stage.plane(plane).shape
            self._seed(key, [point for point in inner_clicks(places) if point.inside(size)])

    def _seed(self, key: PartKey, points: list[Point]) -> None:
        """Give a part its first clicks; it is not asked for yet."""
        set_points(self._stage.document, *key, tuple(points), MaskBefore())
        if self.clicks is not None:
            self.show(self._stage.document.part(*key))
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
        clicked = (part.key for part in self._stage.document.parts() if part.points)
        for key in dict.fromkeys((*clicks, *clicked)):
            own = clicks.get(key, [])
            if self._stage.document.get_part(*key) is None or self._seen.get(key) == _said(own):
                continue  # another plane's may not even have a place in this view
            self._seen[key] = _said(own)
            if self._take(key, own):
                asked.append(key)
        self._stage.predict(asked)  # first of all: what follows takes napari some milliseconds
        if asked:
            self._stage.asked.emit()
        self.clicks.assign(owners, new)
        if new:  # napari is still busy with the point that was added last
            self._stage.later(self.clicks.sweep)
        else:
            self._stage.relabel()

    def _take_new(self, new: list[Click], clicks: dict[PartKey, list[Click]]) -> dict[int, PartKey]:
        """Find the part that each new click is about and add it to that part's clicks."""
        owners: dict[int, PartKey] = {}
        for click in new:
            try:
                owners[click.row] = self._owner(click)
            except MedSAMError as error:
                self._stage.notice.emit(str(error))
            else:
                clicks.setdefault(owners[click.row], []).append(click)
        return owners

    def _owner(self, click: Click) -> PartKey:
        plane, _ = self._place(click)
        document, target = self._stage.document, self.target
        part = None if target is None else document.get_part(target, plane)
        if part is not None:
            if part.prompt is None and not click.positive:
                raise PromptError(
                    f"Object {target} was painted and has no box. Make a plus click on it before a minus click."
                )
            return part.key
        if not click.positive:
            raise PromptError(
                f"{self._stage.image.name}: a minus click corrects an object. Begin one with a plus click."
            )
        if target is not None and target in document and self._picked:
            return document.add_part(Part(target, plane)).key
        object_id = document.add(plane, None, self._stage.choices.class_id).id
        self.choose(object_id)
        return object_id, plane

    def _take(self, key: PartKey, clicks: list[Click]) -> bool:
        """Give a part the clicks it has now; whether it is to be decoded."""
        stage = self._stage
        points = []
        for click in clicks:
            try:
                plane, point = self._place(click)
                if plane != key[1]:
                    raise PromptError(f"{point} left the plane of object {key[0]}. Move it back.")
            except MedSAMError as error:
                stage.notice.emit(str(error))
                return False
            points.append(point)
        if tuple(points) == stage.document.part(*key).points:
            return False
        self._painting.finish()
        part = stage.document.part(*key)
        open_before = key in stage.session.awaited(stage.document)
        standing = as_it_stands(part, self._reader(part))
        return self._do(key, set_points(stage.document, *key, tuple(points), standing), open_before)

    def _do(self, key: PartKey, edit: ClickEdit, open_before: bool) -> bool:
        """Do what changed clicks ask for; whether the part is to be decoded."""
        stage = self._stage
        if edit.gone:
            self._painting.remove(key)
            self.take_off([key])
            return False
        if edit.kept:
            stage.notice.emit(f"Object {key[0]} keeps your corrected mask.")
            return False
        if edit.restore is not None:
            stage.session.withdraw(stage.document, key)
            self._painting.restore(key, edit.restore)
            # The sharper mask of that earlier prompt may never have come.
            return open_before and edit.restore.painted is None
        if stage.document.part(*key).prompt is None:
            stage.session.withdraw(stage.document, key)
            problem = f"Object {key[0]} has no box and no click on it (plus). Click on it."
            stage.document.update_part(*key, problem=problem)
            stage.notice.emit(problem)
            return False
        return edit.ask

    def _place(self, click: Click) -> tuple[PlaneKey, Point]:
        assert self.clicks is not None
        stage = self._stage
        plane, (row, col) = stage.placement(self.clicks.layer).point_of(click.place)
        return plane, Point(row, col, click.positive).check(stage.plane(plane).shape)

    def _reader(self, part: Part) -> ReadRegion | None:
        masks = self._stage.masks
        return None if masks is None else partial(masks.read, part.plane)


def _said(clicks: Iterable[Click]) -> Said:
    """The places and signs of an object's clicks, to tell whether they changed."""
    return tuple((tuple(click.place.tolist()), click.positive) for click in clicks)
