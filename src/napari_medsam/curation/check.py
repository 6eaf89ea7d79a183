"""What a case must be before it is written or handed on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from napari_medsam.curation.case import MAX_UINT8_LABELS, Case, CaseObject
from napari_medsam.curation.problem import BrokenCase
from napari_medsam.records import from_plain

T = TypeVar("T")

MAX_OBJECTS = 65535
_TABLE_SIZE = 2**20  # labels up to here are looked up in a table


def normalised(case: Case, where: Path) -> Case:
    """Return `case` as it is stored: labels 1..n in order, `gts` in its smallest type, plain metadata.

    Row i of the published `boxes` means label i + 1, and a Labels layer has gaps once objects are deleted; an
    object whose label changes keeps the old one as `source_label`. `where` is named in errors.

    Raises BrokenCase: wrong shapes or types, numbers that are not finite, labels without an object, objects
    without a pixel, two objects of one label, one class with two names, no object at all.
    """
    check_arrays(case, where)
    check_objects(case, where)
    ordered = sorted(case.objects, key=lambda o: o.label)
    return replace(
        case,
        imgs=np.ascontiguousarray(case.imgs),
        gts=_renumbered(case.gts, [o.label for o in ordered]),
        spacing=tuple(float(v) for v in case.spacing),
        objects=tuple(_numbered(o, i, where) for i, o in enumerate(ordered, start=1)),
        source=_stored(case.source, "source", where),
        contrast=_stored(case.contrast, "contrast", where),
        model=_stored(case.model, "model", where),
    )


def _renumbered(gts: np.ndarray, labels: list[int]) -> np.ndarray:
    """The i-th of `labels` (ascending) becomes i + 1; uint8 while that suffices, else uint16, C order."""
    kind = np.dtype("<u1" if len(labels) <= MAX_UINT8_LABELS else "<u2")
    if labels[-1] == len(labels):
        return gts.astype(kind, order="C", copy=False)
    if labels[-1] > _TABLE_SIZE:
        numbers = np.searchsorted(np.array(labels), gts) + 1
        return np.where(gts == 0, 0, numbers).astype(kind, order="C")
    table = np.zeros(labels[-1] + 1, kind)
    table[labels] = np.arange(1, len(labels) + 1)
    return np.ascontiguousarray(table[gts])


def _numbered(item: CaseObject, label: int, where: Path) -> CaseObject:
    old = item.source_label if item.source_label is not None or label == item.label else int(item.label)
    return replace(
        item,
        label=label,
        class_id=int(item.class_id),
        box=None if item.box is None else tuple(float(v) for v in item.box),
        corrected=bool(item.corrected),
        predicted_iou=None if item.predicted_iou is None else float(item.predicted_iou),
        source_label=old,
        prompts=_stored(item.prompts, f"objects[{label - 1}].prompts", where),
    )


def _stored(record: T, name: str, where: Path) -> T:
    """A record as it will be read again: numbers of NumPy and paths as plain ones."""
    try:
        return from_plain(type(record), record, name)
    except ValueError as error:
        raise BrokenCase(where, str(error), "Give finite numbers, text or lists") from error


def check_arrays(case: Case, where: Path) -> None:
    """Raise BrokenCase unless imgs, gts and spacing have the shapes and types that `Case` states."""
    imgs, gts = case.imgs, case.gts
    _require(imgs.dtype == np.uint8, where, f"imgs are {imgs.dtype}, not uint8", "Apply the contrast first")
    _require(gts.dtype.kind in "iu", where, f"gts are {gts.dtype}, not integer labels", "Give a label image")
    _require(
        gts.ndim in (2, 3) and gts.size > 0, where, f"gts have shape {gts.shape}", "Give (H, W) or (D, H, W)"
    )
    wanted = (*gts.shape, 3) if gts.ndim == 2 else gts.shape
    what = f"imgs have shape {imgs.shape}, but gts of shape {gts.shape} need {wanted}"
    _require(imgs.shape == wanted, where, what, "Give image and labels on the same grid")
    good = len(case.spacing) == gts.ndim and all(math.isfinite(v) and v > 0 for v in case.spacing)
    what = f"spacing {tuple(case.spacing)} is not {gts.ndim} positive finite numbers"
    _require(good, where, what, "Set the layer's scale, or use 1 along each axis")


def check_objects(case: Case, where: Path) -> None:
    """Raise BrokenCase unless objects and labels match one to one and each object is well-formed."""
    labels = Counter(int(o.label) for o in case.objects)
    _require(bool(labels), where, "the case has no objects", "Segment at least one object before exporting")
    _require(
        len(labels) <= MAX_OBJECTS, where, f"{len(labels)} objects are over {MAX_OBJECTS}", "Crop the image"
    )
    twice = [label for label, count in labels.items() if count > 1]
    _require(
        not twice, where, f"labels {twice} belong to more than one object", "Give each object its own label"
    )
    check_labels(present_labels(case.gts), labels, where)
    for item in case.objects:
        _check_object(item, case, where)
    names: dict[int, str] = {}
    for item in case.objects:
        other = names.setdefault(item.class_id, item.class_name)
        what = f"class {item.class_id} is called both {other!r} and {item.class_name!r}"
        _require(other == item.class_name, where, what, "Give each class one name")


def present_labels(gts: np.ndarray) -> list[int]:
    """Return the labels that occur in `gts` without the background 0, ascending."""
    if gts.size == 0:
        return []
    if gts.min() < 0 or gts.max() > _TABLE_SIZE:
        return [int(v) for v in np.unique(gts) if v != 0]
    seen = np.zeros(int(gts.max()) + 1, bool)  # many times faster than the sort of np.unique
    seen[gts] = True
    return [int(v) for v in np.flatnonzero(seen) if v != 0]


def check_labels(present: Collection[int], known: Collection[int], where: Path) -> None:
    """Raise BrokenCase unless the labels `present` in gts are exactly those `known` as objects."""
    orphans, lost = sorted(set(present) - set(known)), sorted(set(known) - set(present))
    _require(not orphans, where, f"gts hold labels {orphans[:10]} without an object", "Delete or adopt them")
    _require(not lost, where, f"objects {lost[:10]} have no pixel in gts", "Repaint or delete these objects")


def _check_object(item: CaseObject, case: Case, where: Path) -> None:
    name, shape = f"object {item.label}", case.gts.shape
    _require(item.label > 0, where, f"{name} has a label below 1", "Labels start at 1")
    _require(item.class_id >= 0, where, f"{name} has class id {item.class_id}", "Class ids start at 0")
    _require(bool(item.class_name.strip()), where, f"{name} has a class without a name", "Name the class")
    if item.box is not None:
        _require(
            _box_fits(item.box, shape), where, f"{name} has the box {item.box}", "Redraw it inside the image"
        )
    if item.predicted is not None:
        what = f"{name} has a predicted mask {item.predicted.dtype} of shape {item.predicted.shape}"
        good = item.predicted.dtype == bool and item.predicted.shape == shape
        _require(good, where, what, f"Give a boolean mask of shape {shape}")
    iou = item.predicted_iou
    _require(
        iou is None or math.isfinite(iou), where, f"{name} has predicted IoU {iou}", "Use none when unknown"
    )


def _box_fits(box: tuple[float, ...], shape: tuple[int, ...]) -> bool:
    """Finite, of positive extent, partly inside. A volume's object may have a box in the plane only."""
    if len(box) not in (4, 2 * len(shape)) or not all(math.isfinite(v) for v in box):
        return False
    half = len(box) // 2
    return all(
        a < b and a < n and b > 0 for a, b, n in zip(box[:half], box[half:], shape[-half:], strict=True)
    )


def _require(condition: bool, where: Path, what: str, next_step: str) -> None:
    if not condition:
        raise BrokenCase(where, what, next_step)
