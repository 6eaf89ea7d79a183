"""The images an interactive decoder learns from: planes with numbered objects, or without, read from folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

LONGEST = 1600  # pixels; larger images are reduced
LEAST_PIXELS = 30  # of an object; smaller components are specks of the annotation
LEAST_SHARE = 0.001  # of the plane, for components of a binary mask
SLICES = 25  # of a volume, along each axis that is used
ANISOTROPIC = 1.5  # a volume with such a ratio of spacings is cut across its coarsest axis only
DEPICTED = 1.2  # pixels are made square where one side is so much longer


@dataclass(frozen=True)
class Source:
    """One set of images: a folder with images/ and perhaps masks/. labels: "instances", "components" or "none"."""

    name: str
    folder: Path
    licence: str
    modality: str
    labels: str
    fields: int  # to be embedded of each image, beside the whole plane


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels (H, W) or (H, W, 3); labels (H, W) int, 0 is background, None where nobody drew any."""

    source: str
    stem: str
    pixels: npt.NDArray[np.generic]
    labels: npt.NDArray[np.integer] | None


def read_sources(table: Path, roots: list[Path]) -> list[Source]:
    """The sources of a table (JSON), each found in the first of the folders that has it. Raises FileNotFoundError."""
    found = []
    for name, entry in json.loads(table.read_text()).items():
        folder = next((root / name for root in roots if (root / name / "images").is_dir()), None)
        if folder is None:
            places = ", ".join(map(str, roots))
            raise FileNotFoundError(
                f"There is no {name}/images in {places}. Fetch it: see training/interactive/README.md."
            )
        found.append(
            Source(name, folder, entry["licence"], entry["modality"], entry["labels"], entry["fields"])
        )
    return found


def pictures_of(source: Source) -> Iterator[Picture]:
    """The pictures of a source, in the order of their names; volumes give slices."""
    for path in sorted((source.folder / "images").iterdir()):
        mask = next((source.folder / "masks").glob(f"{path.name.split('.')[0]}.*"), None)
        if path.name.endswith((".nii", ".nii.gz")):
            yield from _slices(source, path, mask)
        else:
            pixels = _read(path)
            labels = None if mask is None or source.labels == "none" else _labels(source, _read(mask))
            yield _reduced(Picture(source.name, path.stem, pixels, labels))


def _slices(source: Source, path: Path, mask: Path | None) -> Iterator[Picture]:
    import nibabel

    loaded = nibabel.load(path)
    volume = np.asarray(loaded.dataobj)
    truth = np.zeros(volume.shape, np.uint8) if mask is None else np.asarray(nibabel.load(mask).dataobj)
    spacing = np.asarray(loaded.header.get_zooms()[:3], float)
    uneven = spacing.max() / spacing.min() > ANISOTROPIC
    for axis in [int(np.argmax(spacing))] if uneven else range(3):
        planes, marks = np.moveaxis(volume, axis, 0), np.moveaxis(truth, axis, 0)
        marked = np.flatnonzero((marks > 0).reshape(len(marks), -1).sum(axis=1) > LEAST_PIXELS)
        for number in marked[np.linspace(0, len(marked) - 1, min(SLICES, len(marked))).astype(int)]:
            sides = np.delete(spacing, axis)[::-1] / spacing.min()
            pixels, labels = np.rot90(planes[number]), np.rot90(marks[number])
            if sides.max() > DEPICTED:
                pixels = ndimage.zoom(pixels.astype(float), sides, order=1)
                labels = ndimage.zoom(labels, sides, order=0)
            yield Picture(
                source.name, f"{path.name}:{axis}:{number}", pixels, components(labels, LEAST_PIXELS)
            )


def _read(path: Path) -> npt.NDArray[np.generic]:
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        pixels = np.asarray(tifffile.imread(path))
    else:
        pixels = np.asarray(Image.open(path))
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def _labels(source: Source, mask: npt.NDArray[Any]) -> npt.NDArray[np.integer]:
    flat = mask[..., 0] if mask.ndim == 3 else mask
    if source.labels == "instances":
        numbers: npt.NDArray[np.integer] = np.unique(flat, return_inverse=True)[1].reshape(flat.shape)
        return numbers.astype(np.uint16)
    inside = (flat > (0 if flat.max() <= 1 else 127)).astype(np.uint8)
    return components(inside, max(LEAST_PIXELS, LEAST_SHARE * inside.size))


def components(marks: npt.NDArray[np.integer], least: float) -> npt.NDArray[np.integer]:
    """Connected components of each value of a mask (H, W), numbered from 1; those of fewer pixels are left out."""
    numbered = np.zeros(marks.shape, np.uint16)
    count = 0
    for value in np.unique(marks[marks > 0]):
        parts, found = ndimage.label(marks == value)
        sizes = np.bincount(parts.ravel(), minlength=found + 1)
        for part in range(1, found + 1):
            if sizes[part] >= least:
                count += 1
                numbered[parts == part] = count
    return numbered


def _reduced(picture: Picture) -> Picture:
    height, width = picture.pixels.shape[:2]
    step = -(-max(height, width) // LONGEST)
    if step == 1:
        return picture
    labels = None if picture.labels is None else picture.labels[::step, ::step]
    size = (-(-width // step), -(-height // step))
    pixels = np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.BOX))
    return Picture(picture.source, picture.stem, pixels, labels)
