"""Mask values to objects: which values mean what, what counts as one object, and which are too small."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_medsam.curation.case import CaseObject
from napari_medsam.curation.check import MAX_OBJECTS
from napari_medsam_training.corpus.left_out import LeftOut
from napari_medsam_training.corpus.raster import Raster

Per = Literal["label", "instance", "component"]
FRAME = 256  # side of the frame in which the published rule counts pixels


@dataclass(frozen=True)
class ClassRule:
    """A class and the mask values that mean it; no values: all but 0."""

    id: int
    name: str
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class ObjectRules:
    """per: "label" makes one object of all pixels of a class, "instance" one of each mask value, "component" one of
    each connected part (diagonals connect). least: pixels, in the 256 frame, under which an object is left out of a
    plane; 100 as published.
    """

    classes: tuple[ClassRule, ...]
    per: Per = "label"
    least: float = 100.0


@dataclass(frozen=True, eq=False)
class Objects:
    """gts: like the mask, labels from 1. objects: one for each label. remarks: what was taken away."""

    gts: npt.NDArray[np.int32]
    objects: tuple[CaseObject, ...]
    remarks: tuple[str, ...]


def parse_classes(texts: Sequence[str], target: str) -> list[tuple[str, tuple[int, ...]]]:
    """(class name, values) for each text such as "2", "1,2" or "tumour=2,3"; no texts: the target, all values.

    Raises ValueError for what is no such text and for a value that comes twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = re.fullmatch(r"(?:([^=]+)=)?(\d+(?:,\d+)*)", text.strip())
        if match is None:
            raise ValueError(
                f"{text!r} is not a choice of labels. Write VALUES or NAME=VALUES, as in tumour=2,3."
            )
        name = (match[1] or target).strip()
        found[name] = found.get(name, ()) + tuple(int(value) for value in match[2].split(","))
    values = [value for chosen in found.values() for value in chosen]
    if len(set(values)) < len(values) or 0 in values:
        raise ValueError(
            f"Of the labels {values} one comes twice or is 0, the background. Give each value once."
        )
    return list(found.items()) or [(target, ())]


def objects_of(mask: Raster, rules: ObjectRules) -> Objects:
    """The objects of a mask (H, W), or (D, H, W) with planes first.

    Raises LeftOut: values that are no labels, an empty mask, one without the wanted labels, one that is all
    foreground, objects that are all too small.
    """
    values = _whole_numbers(mask.data)
    if mask.lossy:
        values = _two_sided(values, rules)
    if not values.any():
        raise LeftOut("empty-mask", "Its mask is empty.")
    classes = np.zeros(values.shape, np.int32)
    for number, rule in enumerate(rules.classes, start=1):
        classes[np.isin(values, rule.values) if rule.values else values != 0] = number
    if not classes.any():
        present = ", ".join(map(str, np.unique(values[values != 0])[:8].tolist()))
        raise LeftOut("no-such-label", f"Its mask has none of the chosen labels; it has {present}.")
    if classes.all() and (len(rules.classes) == 1 or (classes == classes.flat[0]).all()):
        raise LeftOut("all-foreground", "Its mask covers everything.")
    labels, names = _numbered(values, classes, rules)
    labels, remarks = _large_enough(labels, names, rules.least)
    kept = np.flatnonzero(np.bincount(labels.ravel()))
    if not (kept > 0).any():
        raise LeftOut("too-small", f"No object has {rules.least:g} pixels in the {FRAME} frame.")
    if (kept > 0).sum() > MAX_OBJECTS:
        raise LeftOut("too-many-objects", f"It has over {MAX_OBJECTS} objects; crop it.")
    objects = tuple(names[label] for label in kept.tolist() if label > 0)
    return Objects(labels, objects, tuple(remarks))


def _whole_numbers(data: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or (data != np.rint(data)).any():
            raise LeftOut("not-labels", "Its mask has fractions or NaN (probabilities?); save whole labels.")
    elif data.dtype.kind not in "biu":
        raise LeftOut("not-labels", f"Its mask is {data.dtype}; save whole numbers.")
    values = data.astype(np.int64)
    if values.min() < 0:
        raise LeftOut("negative-labels", f"Its mask has negative values, {values.min()} the least.")
    return values


def _two_sided(values: npt.NDArray[np.int64], rules: ObjectRules) -> npt.NDArray[np.int64]:
    """A JPEG mask keeps no labels, but black and white survive: over 127 is inside."""
    if rules.per == "instance" or any(rule.values for rule in rules.classes):
        raise LeftOut(
            "lossy-labels", "Its mask is a JPEG, which does not keep labels; save it as PNG or TIFF."
        )
    return (values > 127).astype(np.int64)


def _numbered(
    values: npt.NDArray[np.int64], classes: npt.NDArray[np.int32], rules: ObjectRules
) -> tuple[npt.NDArray[np.int32], dict[int, CaseObject]]:
    """Labels from 1 and the object of each."""
    if rules.per == "label":
        return classes, {
            n: CaseObject(n, rule.name, rule.id) for n, rule in enumerate(rules.classes, start=1)
        }
    labels = np.zeros(values.shape, np.int32)
    objects: dict[int, CaseObject] = {}
    for number, rule in enumerate(rules.classes, start=1):
        inside = classes == number
        parts, sources = _instances(values, inside) if rules.per == "instance" else _components(inside)
        labels[inside] = parts[inside] + len(objects)
        for source in sources:
            label = len(objects) + 1
            objects[label] = CaseObject(label, rule.name, rule.id, source_label=source)
    return labels, objects


def _instances(
    values: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]
) -> tuple[np.ndarray, Iterable[int | None]]:
    present, inverse = np.unique(np.where(inside, values, 0), return_inverse=True)
    return inverse.reshape(values.shape), [int(value) for value in present if value != 0]


def _components(inside: npt.NDArray[np.bool_]) -> tuple[np.ndarray, Iterable[int | None]]:
    from scipy import ndimage

    parts, count = ndimage.label(inside, structure=np.ones((3,) * inside.ndim))
    return parts, [None] * count


def _large_enough(
    labels: npt.NDArray[np.int32], names: dict[int, CaseObject], least: float
) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Labels without those that are too small on a plane, plane by plane; area in the frame follows its scale."""
    labels = labels.copy()
    scale = (FRAME / max(labels.shape[-2:])) ** 2
    gone = pixels = 0
    for plane in labels if labels.ndim == 3 else [labels]:
        counts = np.bincount(plane.ravel(), minlength=len(names) + 1)
        small = (counts > 0) & (counts * scale < least)
        small[0] = False
        if small.any():
            gone, pixels = gone + int(small.sum()), pixels + int(counts[small].sum())
            plane[small[plane]] = 0
    if not gone:
        return labels, []
    where = "outlines on single planes" if labels.ndim == 3 else "objects"
    return labels, [f"{gone} {where} under {least:g} px in the {FRAME} frame left out ({pixels} px)"]
