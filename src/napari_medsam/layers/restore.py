"""From a journal back into the window: objects, boxes, clicks, classes and masks as they were, without the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.document.objects import ObjectRecord, PlaneKey
from napari_medsam.errors import CaseError, ImageError
from napari_medsam.journal.format import KINDS, Outline
from napari_medsam.layers.make import add_prompts

if TYPE_CHECKING:
    from napari_medsam.journal.recovery import Recovered
    from napari_medsam.layers.prompts import PromptLayer
    from napari_medsam.layers.work import Work


@dataclass(frozen=True)
class Restored:
    """What came of it, in words, and which objects had been exported as they are."""

    text: str
    exported: tuple[int, ...]


def put_back(work: Work, found: Recovered) -> Restored:
    """Put what a journal holds into an image at work.

    What was drawn since stays: objects get new ids where theirs are taken, and their masks only free pixels; a box that
    was drawn again in the very same place gives way. Raises CaseError when nothing in the journal fits the image,
    ImageError when the labels cannot hold its ids.
    """
    if found.header.image.shape != work.shape:
        raise ImageError(f"{work.image.name}: the image has another shape now.")
    records = [record for record in found.records if _fits(record.plane, work)]
    if not records:
        raise CaseError(f"{work.image.name}: nothing in its journal can be read.")
    for known in found.classes:
        work.document.set_class(known.id, known.name, known.color)
    ids = _new_ids(work, records)
    masks = work.painting.ready()
    masks.check(max(ids.values()))
    for pixels in found.pixels:
        if _fits(pixels.plane, work) and pixels.patch.mask.any():
            label = ids.setdefault(pixels.label, pixels.label)
            work.document.reserve(label)
            masks.put(pixels.plane, pixels.patch, label)
    masks.refresh()
    restored = [replace(record, id=ids[record.id]) for record in records]
    for record in restored:
        work.document.restore(record)
    _show(work, restored, {ids[number]: drawn for number, drawn in found.outlines.items() if number in ids})
    asked = {ids[number] for number in found.waiting if number in ids}
    work.predict([record.id for record in restored if record.id in asked and record.prompt is not None])
    exported = tuple(ids[record.id] for record in records if record.id not in found.unsaved)
    return Restored(_told(len(restored), len(found.records) - len(records) + found.broken), exported)


def _new_ids(work: Work, records: list[ObjectRecord]) -> dict[int, int]:
    """The id that each object of the journal gets: its own where that is free."""
    ids: dict[int, int] = {}
    fresh = work.masks is None and not len(work.document)
    begun = {
        (other.plane, other.box): other.id for other in reversed(list(work.document)) if _is_begun(other)
    }
    for record in records:
        twin = begun.pop((record.plane, record.box), None)
        if twin is not None:
            ids[record.id] = twin
            work.painting.remove(twin)
    if work.prompts is not None and ids:
        work.prompts.take_off(ids.values())
    for record in records:  # in the order of their ids
        if record.id not in ids:
            ids[record.id] = record.id if fresh else max(record.id, work.document.next_id)
            work.document.reserve(ids[record.id])
    return ids


def _is_begun(other: ObjectRecord) -> bool:
    """Whether an object has a box and nothing was done to it since: one of the journal in its place is the same."""
    return other.box is not None and not other.corrected and not other.points


def outlines(work: Work, prompts: PromptLayer | None, object_ids: Iterable[int]) -> dict[int, Outline]:
    """What was drawn for some objects in a layer of prompts, where that is more than their box."""
    found: dict[int, Outline] = {}
    if prompts is None:
        return found
    placement = work.placement(prompts.layer)
    for object_id, drawn in prompts.drawn(object_ids).items():
        record = work.document.get(object_id)
        if record is None or record.box is None or drawn.kind not in KINDS:
            continue
        places = placement.outline_of(drawn.vertices, record.plane)
        if drawn.kind != "rectangle" or _is_turned(places):
            found[object_id] = Outline(drawn.kind, places)
    return found


def _is_turned(places: tuple[tuple[float, float], ...]) -> bool:
    """Whether a rectangle is no box: its sides do not run along the axes."""
    sides = np.abs(np.diff(np.asarray(places), axis=0))
    return bool((sides.min(axis=1) > 1e-3).any())


def _show(work: Work, records: list[ObjectRecord], drawn: Mapping[int, Outline]) -> None:
    """Draw the shapes and clicks of restored objects."""
    boxed = [record for record in records if record.box is not None]
    if work.prompts is None and boxed:
        work.attach_prompts(add_prompts(work.viewer, work.image, work.axes))
    if work.prompts is not None and boxed:
        placement = work.placement(work.prompts.layer)
        vertices = {
            record.id: placement.places_of(drawn[record.id].vertices, record.plane)
            if record.id in drawn
            else placement.vertices_of(record.box, record.plane)
            for record in boxed
            if record.box is not None
        }
        work.prompts.add(vertices, {number: outline.kind for number, outline in drawn.items()})
    if any(record.points for record in records):
        if work.clicking.clicks is None:
            work.clicking.ready()  # with all that the document has
        else:
            work.clicking.show(*records)
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
