"""Real images with ground truth: where the sets are, their pictures and planes, and single objects of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_medsam.evaluate.metrics import box_from_mask
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane

SMALLEST_OBJECT = 0.001  # of the plane; smaller components are specks of the annotation
LEAST_PIXELS = 12
SEED = 7


def data_folder(given: str | None = None) -> Path:
    """The folder named, else the one NAPARI_MEDSAM_DATA names, else shared/data beside the project."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(given or os.environ.get("NAPARI_MEDSAM_DATA") or beside)


def objects_of(mask: np.ndarray) -> list[np.ndarray]:
    """The connected components of a binary mask that are no specks, as (H, W) bool."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    components = [labels == label for label in range(1, count + 1)]
    return [component for component in components if component.sum() >= SMALLEST_OBJECT * mask.size]


def read_pairs(folder: Path, limit: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(H, W, 3) uint8 images and (H, W) bool masks, sorted by name; `limit` of them, spread over the set."""
    images = sorted((folder / "images").iterdir())
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    if limit is not None and limit < len(images):
        images = [images[i] for i in np.linspace(0, len(images) - 1, limit).astype(int)]
    for path in images:
        mask = np.asarray(Image.open(masks[path.stem]))
        mask = mask if mask.ndim == 2 else mask[:, :, 0]
        yield np.asarray(Image.open(path).convert("RGB")), mask > (127 if mask.max() > 1 else 0)


@dataclass(frozen=True, eq=False)
class Thing:
    """One object with its image, box and share of the plane's longer side."""

    set_name: str
    plane: Plane
    mask: np.ndarray
    box: Box

    @property
    def share(self) -> float:
        return self.box.longest / max(self.plane.shape)


def things(folder: Path, limit: int) -> list[Thing]:
    """Up to `limit` objects of a set, drawn by a fixed seed from all of its images."""
    rng = np.random.default_rng(SEED)
    found: list[tuple[Plane, np.ndarray]] = []
    pairs = list(_planes(folder))
    per_image = max(1, -(-limit // max(len(pairs), 1)))
    for plane, labels in pairs:
        numbers = [number for number in np.unique(labels) if number]
        for number in rng.permutation(numbers)[: 3 * per_image]:
            mask = labels == number
            if mask.sum() >= LEAST_PIXELS:
                found.append((plane, mask))
    chosen = sorted(rng.permutation(len(found))[:limit])
    return [
        Thing(folder.name, plane, mask, Box(*box_from_mask(mask, rng)))
        for plane, mask in (found[index] for index in chosen)
    ]


def _planes(folder: Path) -> Iterator[tuple[Plane, np.ndarray]]:
    """Planes and instance labels; volumes give the slice with most of the target."""
    masks = {path.name.split(".")[0]: path for path in (folder / "masks").iterdir()}
    for path in sorted((folder / "images").iterdir()):
        image, mask = read_picture(path), read_picture(masks[path.name.split(".")[0]])
        instances = mask.dtype == np.uint16
        if path.name.endswith((".nii", ".nii.gz")):
            order = np.argsort([-(mask[..., z] > 0).sum() for z in range(mask.shape[-1])])[:1]
            slices = [(image[..., z], mask[..., z]) for z in sorted(order)]
        else:
            mask = mask if mask.ndim == 2 else mask[..., 0]
            slices = [(image, mask)]
        for pixels, target in slices:
            if instances:
                labels = target
            elif target.max() in (1, 2) and path.name.endswith((".nii", ".nii.gz")):
                labels = target.astype(int)
            else:
                labels, _ = ndimage.label(
                    target > (127 if target.max() > 1 else 0), structure=np.ones((3, 3))
                )
                sizes = np.bincount(labels.ravel())
                labels = np.where(sizes[labels] >= 1e-4 * labels.size, labels, 0)
            yield Plane.from_array(pixels, rgb=pixels.ndim == 3, name=path.name), labels


def read_picture(path: Path) -> np.ndarray:
    """The pixels of a picture, TIFF or NIfTI file as they are; a palette or alpha becomes RGB."""
    if path.name.endswith((".nii", ".nii.gz")):
        import nibabel

        return np.asarray(nibabel.load(path).dataobj)
    if path.suffix in (".tif", ".tiff"):
        import tifffile

        return tifffile.imread(path)
    picture = Image.open(path)
    if picture.mode in ("P", "RGBA", "LA"):
        picture = picture.convert("RGB")
    return np.asarray(picture)
