"""Published MedSAM .npz files, which have no sidecar, as cases of unknown provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.curation.check import check_arrays, present_labels
from napari_medsam.curation.formats.medsam import PUBLISHED_ARRAYS, half_open_boxes
from napari_medsam.curation.npz import read_npz
from napari_medsam.curation.problem import BrokenCase

UNKNOWN_CLASS = "unknown"


def read_published(path: Path) -> Case:
    """Return a published .npz (`imgs`, `gts`, maybe `spacing` and `boxes`) as a case.

    imgs: (H, W, 3), or (H, W) grey repeated to 3, or (D, H, W); any integers within 0..255. gts: integer
    labels on the same grid, kept as they are; each becomes an object of the unknown class (id 0). A file
    without labels gives a case without objects. Missing spacing is 1.

    Raises BrokenCase: no imgs or gts (test files carry boxes instead), other shapes or types.
    """
    arrays = read_npz(path, PUBLISHED_ARRAYS)
    missing = [name for name in ("imgs", "gts") if name not in arrays]
    if missing:
        what = f"has no {' and no '.join(missing)}"
        raise BrokenCase(path, what, "A case needs an image and its labels; remove this file from the folder")
    gts = arrays["gts"]
    if gts.dtype.kind == "b":
        gts = gts.astype(np.uint8)
    if gts.dtype.kind not in "iu" or (gts.size and (gts.min() < 0 or gts.max() > 65535)):
        raise BrokenCase(path, f"gts are {gts.dtype} or outside 0..65535", "Save integer labels")
    gts = gts.astype(np.uint8 if gts.size == 0 or gts.max() < 256 else np.uint16)
    imgs = _image(arrays["imgs"], gts, path)
    spacing = _spacing(arrays.get("spacing"), gts.ndim, path)
    source = Provenance(path=str(path), shape=imgs.shape, more={"provenance": "unknown"})
    case = Case(imgs, gts, spacing, _objects(gts, arrays.get("boxes")), source=source, field="unknown")
    check_arrays(case, path)
    return case


def _image(imgs: np.ndarray, gts: np.ndarray, path: Path) -> np.ndarray:
    if imgs.dtype.kind not in "iu" or (imgs.size and (imgs.min() < 0 or imgs.max() > 255)):
        raise BrokenCase(path, f"imgs are {imgs.dtype} or outside 0..255", "Save them as uint8")
    imgs = imgs.astype(np.uint8)
    return np.repeat(imgs[..., None], 3, axis=-1) if imgs.ndim == gts.ndim == 2 else imgs


def _spacing(spacing: np.ndarray | None, ndim: int, path: Path) -> tuple[float, ...]:
    if spacing is None:
        return (1.0,) * ndim
    if spacing.shape not in ((ndim,), (3,)) or spacing.dtype.kind not in "iuf":
        raise BrokenCase(
            path, f"spacing is {spacing.dtype} of shape {spacing.shape}", "Save one number an axis"
        )
    return tuple(float(v) for v in spacing[:ndim][::-1])


def _objects(gts: np.ndarray, boxes: np.ndarray | None) -> tuple[CaseObject, ...]:
    """Boxes are taken over when there is one a label; the published inference counts them in that order."""
    labels = present_labels(gts)
    fits = boxes is not None and boxes.shape == (len(labels), 2 * gts.ndim) and boxes.dtype.kind in "iu"
    drawn: list[tuple[float, ...] | None] = [None] * len(labels)
    if fits and boxes is not None:
        drawn = list(half_open_boxes(boxes))
    return tuple(
        CaseObject(label, UNKNOWN_CLASS, 0, box=box) for label, box in zip(labels, drawn, strict=True)
    )
