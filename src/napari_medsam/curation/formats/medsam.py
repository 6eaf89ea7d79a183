"""The .npz of a case as MedSAM's published code reads it: our axes in theirs, and two arrays of ours beside them.

Ours: (row, col) and (z, row, col), boxes half-open. Theirs (CVPR24 baseline, branch LiteMedSAM): x before y
before z, boxes of whole pixel indices whose maximum is the last pixel inside, spacing as SimpleITK gives it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from napari_medsam.curation.case import MAX_UINT8_LABELS, Case, CaseObject

MARKER = "napari_medsam_case"  # an array of this name tells our files from published ones
VERSION = 1
PUBLISHED_ARRAYS = ("imgs", "gts", "spacing", "boxes")
ARRAYS = (*PUBLISHED_ARRAYS, "predictions", MARKER)


def arrays_of(case: Case, runs: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a normalised case in the order they are written; runs: its predictions, packed."""
    return {
        "imgs": case.imgs,
        "gts": case.gts,
        "spacing": published_spacing(case.spacing),
        "boxes": published_boxes(case),
        "predictions": runs,
        MARKER: np.array(VERSION, np.int64),
    }


def tight_boxes(gts: np.ndarray, labels: Sequence[int]) -> dict[int, tuple[float, ...]]:
    """Return each label's tight half-open box, (r0, c0, r1, c1) or (z0, r0, c0, z1, r1, c1).

    gts: (H, W) or (D, H, W) integers. Labels that are not there are left out; no labels give an empty dict.
    """
    from scipy import ndimage

    slices = ndimage.find_objects(gts, max_label=max(labels, default=0))
    boxes: dict[int, tuple[float, ...]] = {}
    for label in labels:
        found = slices[label - 1] if label >= 1 else None
        if found is not None:
            boxes[label] = (*(float(s.start) for s in found), *(float(s.stop) for s in found))
    return boxes


def published_boxes(case: Case) -> np.ndarray:
    """Return the `boxes` array: int64 (n, 4) XYXY or (n, 6) XYZXYZ, row i for label i + 1.

    The box is the one drawn, rounded outwards to whole pixels and clipped to the plane; an object without a
    drawn box, and the z extent of one with a box in a plane only, take the mask's tight box. int64, because
    the published inference counts with these numbers (unsigned ones would wrap below zero).
    """
    ndim = case.gts.ndim
    tight = tight_boxes(case.gts, [o.label for o in case.objects])
    rows = [_published(_full_box(o, tight[o.label], ndim), case.gts.shape) for o in case.objects]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 2 * ndim)


def _full_box(item: CaseObject, tight: tuple[float, ...], ndim: int) -> tuple[float, ...]:
    if item.box is None or len(item.box) == 2 * ndim:
        return tight if item.box is None else item.box
    r0, c0, r1, c1 = item.box
    return (tight[0], r0, c0, tight[3], r1, c1)


def _published(box: tuple[float, ...], shape: tuple[int, ...]) -> list[int]:
    ndim = len(shape)
    low = [min(max(math.floor(v), 0), n - 1) for v, n in zip(box[:ndim], shape, strict=True)]
    high = [min(max(math.ceil(v) - 1, 0), n - 1) for v, n in zip(box[ndim:], shape, strict=True)]
    return [*_xyz(low), *_xyz(high)]


def _xyz(zyx: Sequence[int]) -> list[int]:
    """(row, col) -> x, y; (z, row, col) -> x, y, z."""
    return list(reversed(zyx))


def half_open_boxes(boxes: np.ndarray) -> list[tuple[float, ...]]:
    """Return published boxes, (n, 4) XYXY or (n, 6) XYZXYZ, as our half-open (z,) row, col ones."""
    ndim = boxes.shape[1] // 2
    return [
        (*(float(v) for v in row[:ndim][::-1]), *(float(v) + 1 for v in row[ndim:][::-1]))
        for row in boxes.tolist()
    ]


def published_spacing(spacing: Sequence[float]) -> np.ndarray:
    """Return (row, col) or (z, row, col) spacing as the published (x, y) or (x, y, z), float64."""
    return np.array(list(reversed(spacing)), dtype=np.float64)


def pack_predictions(objects: Iterable[CaseObject]) -> np.ndarray:
    """Return the predicted masks as runs: int64 (k, 3) of label, first flat index (C order), length.

    Predictions of neighbours may overlap, so one label image cannot hold them. Objects without a prediction,
    and empty predictions, have no rows.
    """
    runs = [np.zeros((0, 3), np.int64)]
    for item in objects:
        if item.predicted is not None:
            flat = np.zeros(item.predicted.size + 2, np.int8)
            flat[1:-1] = item.predicted.ravel()
            edges = np.flatnonzero(np.diff(flat))
            starts, ends = edges[::2], edges[1::2]
            runs.append(np.stack([np.full(starts.size, item.label), starts, ends - starts], axis=1))
    return np.concatenate(runs).astype("<i8")


def unpack_prediction(runs: np.ndarray, label: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the predicted mask of `label`, bool of `shape`; no runs give an empty mask.

    Only the pages the runs touch take memory: hundreds of small objects in a large plane stay cheap.
    Raises ValueError for runs that leave the array.
    """
    mask = np.zeros(shape, bool)
    flat = mask.reshape(-1)
    rows = runs[runs[:, 0] == label, 1:]
    if rows.size and (rows.min() < 0 or rows.max() > flat.size or rows.sum(axis=1).max() > flat.size):
        raise ValueError(f"predicted mask of label {label} leaves the image")
    for start, length in rows.tolist():
        flat[start : start + length] = True
    return mask


def upstream_warnings(case: Case) -> list[str]:
    """Return what the published training and inference code will get wrong about this case, if anything."""
    found = []
    if len(case.objects) > MAX_UINT8_LABELS:
        found.append(
            f"{len(case.objects)} objects need 16-bit labels; the published training code casts labels to "
            "8 bits, so labels from 256 on wrap around and merge with others"
        )
    if case.gts.ndim == 3:
        found += _volume_warnings(case)
    return found


def _volume_warnings(case: Case) -> list[str]:
    found = []
    empty = np.flatnonzero(~case.gts.any(axis=(1, 2))).tolist()
    if empty:
        found.append(
            f"{len(empty)} of {case.gts.shape[0]} slices hold no object; the published pre-processing leaves "
            "such slices out, and its training takes the whole frame as the object on each"
        )
    flat = [int(o.label) for o, b in zip(case.objects, published_boxes(case), strict=True) if b[2] == b[5]]
    if flat:
        found.append(f"labels {flat} lie on one slice only; the published 3D inference refuses such boxes")
    return found
