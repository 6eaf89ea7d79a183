"""A real image set as cases: each image one, its ground truth the corrected labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lib.images import read_picture
from scipy import ndimage

from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.curation.pixels import case_pixels, contrast_record
from napari_medsam.geometry import bbox_of
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.plane import Plane

INSTANCES = ("bact_trpl", "nuclei_dsb2018")
ONE_OBJECT = ("fundus_chase",)  # a tree of vessels is one object
LEAST_SHARE = 0.001  # of the plane; smaller components are specks of the annotation
LEAST_PIXELS = 30


def image_paths(data: Path, name: str) -> list[Path]:
    """The images of a set, sorted by name."""
    return sorted(path for path in (data / name / "images").iterdir() if path.is_file())


def group_of(name: str, stem: str) -> str:
    """What must stay on one side of a split: the child in fundus_chase, the case elsewhere."""
    return stem[:-1] if name == "fundus_chase" else stem


def case_of(name: str, image: Path) -> Case:
    """The case of an image and the mask beside it, intensities by the default contrast."""
    pixels = read_picture(image)
    plane = Plane.from_array(pixels, rgb=pixels.ndim == 3, name=image.stem)
    labels = labels_of(name, next((image.parent.parent / "masks").glob(f"{image.stem}.*")))
    boxes = [bbox_of(labels == label) for label in np.unique(labels[labels > 0])]
    contrast = Contrast()
    imgs, window = case_pixels(plane, contrast, boxes)
    target = name.split("_")[0]
    return Case(
        imgs=imgs,
        gts=labels,
        spacing=(1.0, 1.0),
        objects=tuple(
            CaseObject(int(label), target, 1, corrected=True) for label in np.unique(labels[labels > 0])
        ),
        source=Provenance(path=image.name, layer=image.stem),
        contrast=contrast_record(contrast, window),
        group=group_of(name, image.stem),
    )


def labels_of(name: str, mask: Path) -> np.ndarray:
    """Objects of a mask file numbered from 1, (H, W) uint16: its instances, or its connected components."""
    found = read_picture(mask)
    found = found[..., 0] if found.ndim == 3 else found
    if name in INSTANCES:
        return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.uint16)
    inside = found > (0 if found.max() <= 1 else 127)
    if name in ONE_OBJECT:
        return inside.astype(np.uint16)
    parts, count = ndimage.label(inside)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    kept = [n for n in range(1, count + 1) if sizes[n] >= max(LEAST_PIXELS, LEAST_SHARE * inside.size)]
    numbers = np.zeros(count + 1, np.uint16)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[parts]
