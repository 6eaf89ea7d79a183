"""Pictures to lessons: fields of many sizes under many contrasts, embedded, with the objects to be found on them.

Everything is drawn from the seed, the source's name and the picture's, so a lesson does not depend on its neighbours.
A lesson is one file, whole or absent: an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_medsam.files import replacing
from napari_medsam.finetune.samples import target_on, turned
from napari_medsam.geometry import Box, bbox_of
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field, field_window, read_field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.model.local import MedSAM
from napari_medsam.segment.fields import DEFAULT_POLICY, centred_field
from napari_medsam_training.interactive.pictures import Picture, Source, pictures_of

LEAST_LOGITS = 40  # an object of fewer is too small on this field to be clicked on
MOST_OBJECTS = 30  # of a field
INSIDE = 0.7  # share of an object that must lie in the field
TEACHER_BOXES = 14  # tried on a field
TEACHER_OBJECTS = 6  # kept of them
SURE_IOU = 0.86  # predicted by the released decoder for its own mask
FLAT = 4.0  # a field whose grey values deviate less shows nothing


@dataclass(frozen=True, eq=False)
class Lesson:
    """One embedded field. features (C, h, w) float16; objects (n, h', w') uint8, the share of each logit covered;
    own: whether they are the released decoder's masks, not a person's; held: kept out of training, for validation."""

    source: str
    features: npt.NDArray[np.float16]
    objects: npt.NDArray[np.uint8]
    own: bool
    held: bool


def make_lessons(source: Source, model: MedSAM, folder: Path, seed: int) -> int:
    """Embed what is missing of a source's lessons in a folder; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for picture in pictures_of(source):
        rng = np.random.default_rng([seed, _number(f"{picture.source}/{picture.stem}")])
        plane = Plane.from_array(picture.pixels, rgb=picture.pixels.ndim == 3, name=picture.stem)
        for field in _fields(picture, source.fields, rng):
            own_rng = np.random.default_rng(rng.integers(2**31))
            path = folder / f"{source.name}-{count:05d}.npz"
            count += 1
            if not path.exists():
                _write(path, picture, _lesson(picture, plane, field, model, own_rng))
    return count


def read_lessons(folder: Path) -> Iterator[Lesson]:
    """The lessons that hold an object."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as entry:
            if len(entry["objects"]):
                source = path.name.rsplit("-", 1)[0]
                flags = bool(entry["own"]), bool(entry["held"])
                yield Lesson(source, entry["features"], entry["objects"], *flags)


def _write(
    path: Path, picture: Picture, lesson: tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]] | None
) -> None:
    features, objects = lesson or (np.zeros(0, np.float16), np.zeros((0, 0, 0), np.uint8))
    held = _number(f"held {picture.source}/{picture.stem}") % 10 == 0
    with replacing(path) as stream:
        np.savez(stream, features=features, objects=objects, own=picture.labels is None, held=held)


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def _fields(picture: Picture, count: int, rng: np.random.Generator) -> Iterator[Field]:
    """The whole plane, then fields around objects, or anywhere where nobody marked any."""
    shape = picture.pixels.shape[:2]
    if picture.labels is None:
        yield whole_field(shape)
        for _ in range(count):
            side = int(min(shape) * rng.uniform(0.25, 0.8))
            yield Field(
                int(rng.integers(0, shape[0] - side + 1)),
                int(rng.integers(0, shape[1] - side + 1)),
                side,
                side,
                "centred",
            )
        return
    labels = np.unique(picture.labels[picture.labels > 0])
    if not len(labels):
        return
    yield whole_field(shape)
    chosen = rng.choice(labels, size=count, replace=len(labels) < count)
    for label in chosen:
        bbox = bbox_of(picture.labels == label)
        assert bbox is not None
        if rng.random() < 0.35:  # as the object's own box would be answered
            yield centred_field(bbox, shape, DEFAULT_POLICY)
        else:
            yield _around(bbox, shape, rng)


def _around(bbox: Box, shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """A square field 1.5 to 7 times as long as an object that lies somewhere in it."""
    longest = max(bbox.height, bbox.width)
    side = int(max(longest * np.exp(rng.uniform(np.log(1.5), np.log(7))), 32))
    if side >= 0.95 * max(shape):
        return whole_field(shape)
    height, width = min(side, shape[0]), min(side, shape[1])
    row = _start(int(bbox.r0), int(bbox.r1), height, shape[0], rng)
    return Field(row, _start(int(bbox.c0), int(bbox.c1), width, shape[1], rng), height, width, "centred")


def _start(first: int, stop: int, side: int, length: int, rng: np.random.Generator) -> int:
    low, high = max(0, stop - side), min(first, length - side)
    return int(rng.integers(low, high + 1)) if high >= low else min(max(low, 0), length - side)


def _lesson(
    picture: Picture, plane: Plane, field: Field, model: MedSAM, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]] | None:
    """Features and objects of one field; None where it shows nothing."""
    pixels = read_field(plane, field, field_window(plane, Contrast(), field), model.frame)
    if pixels.std() < FLAT:
        return None
    view = int(rng.integers(8))
    seen = turned(pixels, view)
    if rng.random() < 0.5:
        seen = recoloured(seen, rng)
    if picture.labels is None:
        features = model.encode(model.prepare(seen)).features
        return features, _stacked(_teacher_masks(model, features, seen.shape[:2], rng), seen.shape[:2])
    objects = [turned(target, view) for target in _targets(picture.labels, field, model)]
    if not objects:
        return None
    return model.encode(model.prepare(seen)).features, _stacked(objects, seen.shape[:2])


def _stacked(objects: list[npt.NDArray[np.uint8]], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.stack(objects) if objects else np.zeros((0, *shape), np.uint8)


def _targets(labels: npt.NDArray[np.integer], field: Field, model: MedSAM) -> Iterator[npt.NDArray[np.uint8]]:
    """The objects of a field, largest first."""
    part = labels[field.row : field.row + field.height, field.col : field.col + field.width]
    found, sizes = np.unique(part[part > 0], return_counts=True)
    for number in np.argsort(-sizes, kind="stable")[:MOST_OBJECTS]:
        mask = labels == found[number]
        target = target_on(mask, field, model.frame)
        if (
            sizes[number] >= INSIDE * np.count_nonzero(mask)
            and np.count_nonzero(target > 127) >= LEAST_LOGITS
        ):
            yield target


def _teacher_masks(
    model: MedSAM, features: npt.NDArray[np.float16], shape: tuple[int, int], rng: np.random.Generator
) -> list[npt.NDArray[np.uint8]]:
    """What the released decoder finds in boxes drawn anywhere, where it is sure of it: (h, w) uint8 each."""
    sides = np.exp(rng.uniform(np.log(0.1), np.log(0.6), size=(TEACHER_BOXES, 2)))
    sides[:, 1] = np.clip(sides[:, 1], sides[:, 0] / 2.5, sides[:, 0] * 2.5)
    sides = np.minimum(sides, 1) * np.array(shape)
    corner = rng.uniform(size=sides.shape) * (np.array(shape) - sides)
    decoded = model.decode(features, np.hstack([corner, corner + sides]).astype(np.float32))
    kept: list[npt.NDArray[np.bool_]] = []
    for logits, iou, (height, width) in zip(decoded.logits, decoded.iou, sides, strict=True):
        mask = _main_part(logits[: shape[0], : shape[1]] > 0)
        filled = np.count_nonzero(mask) / (height * width)
        if iou < SURE_IOU or np.count_nonzero(mask) < LEAST_LOGITS or not 0.25 < filled < 0.9:
            continue
        if all(np.count_nonzero(mask & other) < 0.6 * np.count_nonzero(mask | other) for other in kept):
            kept.append(mask)
    return [mask.astype(np.uint8) * 255 for mask in kept[:TEACHER_OBJECTS]]


def _main_part(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest component where it is nearly all of a mask, else nothing."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    largest: npt.NDArray[np.bool_] = parts == 1 + int(np.argmax(sizes))
    return largest if sizes.max() >= 0.9 * sizes.sum() else np.zeros_like(mask)


def recoloured(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The pixels (h, w, 3) under another contrast, as another modality might show them."""
    seen = pixels.astype(np.float32) / 255
    if rng.random() < 0.3:
        seen = 1 - seen
    seen = seen ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.4:
        dark, light = rng.uniform(0, 0.3, 3), rng.uniform(0.5, 1, 3)
        seen = (dark + (light - dark) * seen)[..., rng.permutation(3)]
    if rng.random() < 0.2:
        seen = ndimage.gaussian_filter(seen, (*(rng.uniform(0.5, 1.5),) * 2, 0))
    if rng.random() < 0.2:
        seen = seen + rng.normal(0, rng.uniform(0.01, 0.06), seen.shape[:2])[..., None]
    return (np.clip(seen, 0, 1) * 255).astype(np.uint8)
