"""Cases to training samples: each object on the field that will answer its box, with the mask in the decoder's grid.

Drawing boxes is apart from using them: `boxes_of_epoch` draws all the jitter of an epoch from a seed, so that a run
can be replayed and resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from napari_medsam.curation.case import Case
from napari_medsam.curation.pixels import seen_plane
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.geometry import Box, bbox_of
from napari_medsam.image.field import Field, Frame
from napari_medsam.image.plane import Plane
from napari_medsam.segment.detail import detail_fields
from napari_medsam.segment.fields import FieldPolicy, centred_field
from napari_medsam.segment.logits import shares_of_logits

Pixel = TypeVar("Pixel", bound=np.generic)

LEAST_PIXELS = 8
"""Objects of fewer pixels teach nothing that a box does not say already."""

PUBLISHED_SIDE = 256
"""Pixels a side of the frame in which the paper states how far its boxes are moved."""

USUAL_GROWTH = 0.025
"""Boxes are drawn a little too large; a sample's field is chosen for such a box."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One object on one field.

    case, plane, label: where it comes from; plane is the slice of a volume, 0 in a 2D case. box: around the object as
    a person would draw it, in plane pixels. field: what the model is shown. target: share of each logit that the
    object covers, (h, w) uint8 from 0 to 255, over the logits of the field's content. image: the plane the field is
    cut from.
    """

    case: str
    plane: int
    label: int
    class_name: str
    group: str
    field: Field
    box: Box
    target: npt.NDArray[np.uint8]
    image: Plane


def planes_of(case: Case, name: str) -> Iterator[tuple[int, Plane, npt.NDArray[np.integer]]]:
    """Each plane of a case that holds labels: its number, the plane as the model sees it, its labels (H, W)."""
    if case.gts.ndim == 2:
        if case.gts.any():
            yield 0, seen_plane(case, 0, name), case.gts
        return
    for number in np.flatnonzero(case.gts.any(axis=(1, 2))).tolist():
        yield number, seen_plane(case, number, f"{name} [{number}]"), case.gts[number]


def samples_of(
    case: Case, name: str, config: FinetuneConfig, frame: Frame, policy: FieldPolicy, views: int = 1
) -> list[Sample]:
    """All samples of a case: one an object and view, or one a field where an object is divided for detail.

    frame: the model's. views: how many turned and mirrored copies, 1 for the planes as they are. Objects under
    `LEAST_PIXELS` are left out. A case without objects gives none.
    """
    classes = {item.label: item.class_name for item in case.objects}
    group = case.group or name
    found = []
    for number, plane, labels in planes_of(case, name):
        pixels = np.asarray(plane.levels[0])
        for view in range(views):
            seen = plane if view == 0 else replace(plane, levels=(turned(pixels, view),))
            turned_labels = turned(labels, view)
            for label in np.unique(turned_labels[turned_labels > 0]).tolist():
                mask = turned_labels == label
                for field, box in _fields_of(mask, config.detail, policy):
                    target = target_on(mask, field, frame)
                    class_name = classes.get(label, "unknown")
                    found.append(Sample(name, number, label, class_name, group, field, box, target, seen))
    return found


def turned(array: npt.NDArray[Pixel], view: int) -> npt.NDArray[Pixel]:
    """One of the eight ways to turn and mirror a plane (H, W, ...); 0 leaves it as it is."""
    quarter = np.rot90(array, view % 4)
    return np.ascontiguousarray(quarter[:, ::-1] if view >= 4 else quarter)


def target_on(mask: npt.NDArray[np.bool_], field: Field, frame: Frame) -> npt.NDArray[np.uint8]:
    """What the decoder should say of a mask (H, W) on a field: see `shares_of_logits`."""
    part = mask[field.box.slices]
    return shares_of_logits(part, field, frame)


def boxes_of_epoch(samples: Sequence[Sample], config: FinetuneConfig, epoch: int) -> list[Box]:
    """A box for each sample as somebody might draw it this time; the same for a seed and epoch, always."""
    rng = np.random.default_rng([config.seed, epoch, 1])
    drawn = rng.uniform(*(config.jitter_px or config.jitter), size=(len(samples), 4))
    return [
        moved_box(sample.box, sample.field, moves, pixels=config.jitter_px is not None)
        for sample, moves in zip(samples, drawn, strict=True)
    ]


def moved_box(box: Box, field: Field, moves: npt.NDArray[np.float64], *, pixels: bool = False) -> Box:
    """A sample's box with its edges r0, c0, r1, c1 moved outwards; an edge that the field cut off stays on the field's.

    moves: (4,) shares of the box's sides, counted from the object's own edges; or pixels, its field scaled to 256.
    """
    if pixels:
        pixel = max(field.height, field.width) / PUBLISHED_SIDE
        moves = moves * (pixel / np.tile((box.height, box.width), 2))
    edge = field.box
    cut = (box.r0 <= edge.r0, box.c0 <= edge.c0, box.r1 >= edge.r1, box.c1 >= edge.c1)
    return _grown(box, np.where(cut, 0.0, moves - USUAL_GROWTH), (edge.r1, edge.c1)).intersect(edge)


def order_of_epoch(samples: int, config: FinetuneConfig, epoch: int) -> npt.NDArray[np.int64]:
    """A permutation of the samples, the same for a seed and epoch, always."""
    return np.random.default_rng([config.seed, epoch, 2]).permutation(samples)


def _fields_of(mask: npt.NDArray[np.bool_], detail: int, policy: FieldPolicy) -> Iterator[tuple[Field, Box]]:
    """The fields to learn an object on: the one that answers its box, or those it is divided into."""
    bbox = bbox_of(mask)
    if bbox is None or np.count_nonzero(mask) < LEAST_PIXELS:
        return
    box = _grown(bbox, (USUAL_GROWTH,) * 4, mask.shape)
    fine = detail_fields(box, mask.shape, detail, policy)
    if not fine:
        yield centred_field(box, mask.shape, policy), box
        return
    for field in _apart(fine, box):
        yield field, box.intersect(field.box)


def _apart(fields: Iterable[Field], box: Box) -> list[Field]:
    """Of overlapping fields of a grid as few as cover about all of a box: neighbours teach almost the same."""
    known = sorted(fields, key=lambda field: (field.row, field.col))
    rows = _covering({field.row for field in known}, known[0].height, box.r0, box.r1)
    cols = _covering({field.col for field in known}, known[0].width, box.c0, box.c1)
    return [field for field in known if field.row in rows and field.col in cols]


def _covering(starts: Set[int], length: int, first: float, last: float) -> set[int]:
    """As few of the starts as cover first..last with stretches of `length`, but for a quarter of one at the end."""
    chosen = [max((start for start in starts if start <= first), default=min(starts))]
    while chosen[-1] + 1.25 * length < last and chosen[-1] < max(starts):
        chosen.append(max(start for start in starts if start <= chosen[-1] + length))
    return set(chosen)


def _grown(box: Box, shares: Sequence[float] | npt.NDArray[np.float64], shape: tuple[float, ...]) -> Box:
    """Edges r0, c0, r1, c1 moved outwards by shares of the box's sides, inside a plane of `shape`."""
    top, left, bottom, right = (np.asarray(shares) * np.tile((box.height, box.width), 2)).tolist()
    return box.grown(top, left, bottom, right).intersect(Box(0.0, 0.0, float(shape[0]), float(shape[1])))
