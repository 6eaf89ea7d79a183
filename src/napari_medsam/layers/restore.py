"""From a journal back into the window: objects, boxes, clicks, classes and masks as they were, without the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.document.objects import ObjectRecord, Part, PartKey, PlaneKey
from napari_medsam.errors import CaseError, ImageError
from napari_medsam.journal.format import KINDS, Outline
from napari_medsam.layers.make import add_prompts

if TYPE_CHECKING:
    from napari_medsam.journal.recovery import Recovered
    from napari_medsam.layers.prompts import PromptLayer
    from napari_medsam.layers.work import Work


@dataclass(frozen=True)
class Restored:
    """What came of it, in words, and which parts had been exported as they are."""

    text: str
    exported: tuple[PartKey, ...]


def put_back(work: Work, found: Recovered) -> Restored:
    """Put what a journal holds into an image at work.

    What was drawn since stays: objects get new ids where theirs are taken, and their masks only free pixels; a box that
    was drawn again in the very same place gives way. Raises CaseError when nothing in the journal fits the image,
    ImageError when the labels cannot hold its ids.
    """
    if found.header.image.shape != work.shape:
        raise ImageError(f"{work.image.name}: the image has another shape now.")
    every = [part for record in found.objects for part in record.parts.values()]
    parts = [part for part in every if _fits(part.plane, work)]
    if not parts:
        raise CaseError(f"{work.image.name}: nothing in its journal can be read.")
    for known in found.classes:
        work.document.set_class(known.id, known.name, known.color)
    ids = _new_ids(work, parts)
    work.painting.finish()
    masks = work.painting.ready()
    masks.check(max(ids.values()))
    for pixels in found.pixels:
        if _fits(pixels.plane, work) and pixels.patch.mask.any():
            label = ids.setdefault(pixels.label, pixels.label)
            work.document.reserve(label)
            masks.put(pixels.plane, pixels.patch, label)
    masks.refresh()
    restored = [replace(part, object_id=ids[part.object_id]) for part in parts]
    classes = {ids[record.id]: record.class_id for record in found.objects if record.id in ids}
    with work.document.batch():
        for object_id in dict.fromkeys(part.object_id for part in restored):
            own = {part.plane: part for part in restored if part.object_id == object_id}
            work.document.restore(ObjectRecord(object_id, classes[object_id], own))
    _show(work, restored, {_new_key(key, ids): drawn for key, drawn in found.outlines.items()})
    asked = {_new_key(key, ids) for key in found.waiting}
    work.predict([part.key for part in restored if part.key in asked and part.prompt is not None])
    exported = tuple(_new_key(part.key, ids) for part in parts if part.key not in found.unsaved)
    return Restored(_told(len(classes), len(every) - len(parts) + found.broken), exported)


def _new_key(key: PartKey, ids: Mapping[int, int]) -> PartKey:
    return ids.get(key[0], key[0]), key[1]


def _new_ids(work: Work, parts: list[Part]) -> dict[int, int]:
    """The id that each object of the journal gets: its own where that is free."""
    ids: dict[int, int] = {}
    document = work.document
    fresh = work.masks is None and not len(document)
    begun = {(part.plane, part.box): part.key for part in reversed(document.parts()) if _is_begun(part)}
    twins = {part.key: begun.pop((part.plane, part.box), None) for part in parts}
    for twin in filter(None, twins.values()):
        work.painting.remove(twin)
    if work.prompts is not None:
        work.prompts.take_off(filter(None, twins.values()))
    for (object_id, _), other in twins.items():
        if other is not None and other[0] not in document and other[0] not in ids.values():
            ids.setdefault(object_id, other[0])
    for part in parts:  # in the order of their ids
        if part.object_id not in ids:
            ids[part.object_id] = part.object_id if fresh else max(part.object_id, document.next_id)
            document.reserve(ids[part.object_id])
    return ids


def _is_begun(part: Part) -> bool:
    """Whether a part has a box and nothing was done to it since: one of the journal in its place is the same."""
    return part.box is not None and not part.corrected and not part.points


def outlines(work: Work, prompts: PromptLayer | None, parts: Iterable[PartKey]) -> dict[PartKey, Outline]:
    """What was drawn for some parts in a layer of prompts, where that is more than their box."""
    found: dict[PartKey, Outline] = {}
    if prompts is None:
        return found
    placement = work.placement(prompts.layer)
    for key, drawn in prompts.drawn(parts).items():
        part = work.document.get_part(*key)
        kind = next((kind for kind in KINDS if kind == drawn.kind), None)
        if part is None or part.box is None or kind is None:
            continue
        places = placement.outline_of(drawn.vertices, part.plane)
        if kind != "rectangle" or _is_turned(places):
            found[key] = Outline(kind, places)
    return found


def _is_turned(places: tuple[tuple[float, float], ...]) -> bool:
    """Whether a rectangle is no box: its sides do not run along the axes."""
    sides = np.abs(np.diff(np.asarray(places), axis=0))
    return bool((sides.min(axis=1) > 1e-3).any())


def _show(work: Work, parts: list[Part], drawn: Mapping[PartKey, Outline]) -> None:
    """Draw the shapes and clicks of restored parts."""
    boxes = {part.key: part.box for part in parts if part.box is not None}
    if work.prompts is None and boxes:
        work.attach_prompts(add_prompts(work.viewer, work.image, work.axes))
    if work.prompts is not None and boxes:
        placement = work.placement(work.prompts.layer)
        vertices = {
            key: placement.places_of(drawn[key].vertices, key[1])
            if key in drawn
            else placement.vertices_of(box, key[1])
            for key, box in boxes.items()
        }
        work.prompts.add(vertices, {key: outline.kind for key, outline in drawn.items()})
    if any(part.points for part in parts):
        if work.clicking.clicks is None:
            work.clicking.ready()  # with all that the document has
        else:
            work.clicking.show(*parts)
    work.relabel()


def _fits(plane: PlaneKey, work: Work) -> bool:
    """Whether a plane lies in the image as it is looked at now."""
    whole = {axis for axis, place in enumerate(plane.index) if place is None}
    channel = set() if work.axes.channel is None else {work.axes.channel}
    return len(plane.index) == work.axes.ndim and whole == set(plane.displayed) | channel


def _told(count: int, lost: int) -> str:
    text = f"{count} object{'s' if count != 1 else ''} restored."
    if lost:
        text += f" {lost} entr{'ies' if lost != 1 else 'y'} of the journal could not be read."
    return text
