"""How well a mask agrees with a reference, and boxes made from masks."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from napari_medsam.evaluate.surface import surface_elements
from napari_medsam.geometry import Box, bbox_of

CLINICAL_UNITS = MappingProxyType({"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0})
"""Millimetres in each of the units in which clinical images give their spacing."""


def dice_coefficient(prediction: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Dice similarity coefficient: twice the overlap over the sum of both sizes, 0 to 1.

    Masks of one shape and any number of axes; non-zero is inside. Both empty gives 1.0, one empty 0.0. Raises
    ValueError when the shapes differ. Source: Dice, Ecology 26 (1945).
    """
    predicted, true = _masks(prediction, reference)
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    if total == 0:
        return 1.0
    return 2 * int(np.count_nonzero(predicted & true)) / total


def normalized_surface_distance(
    prediction: npt.ArrayLike, reference: npt.ArrayLike, spacing: Sequence[float], tolerance: float
) -> float:
    """Share of both surfaces that lies within a tolerance of the other one, 0 to 1 (surface Dice).

    Masks (H, W) or (D, H, W) of one shape; non-zero is inside, outside the array is background. spacing: size
    of a pixel along each axis; tolerance: in the same unit, itself included. Each element of a contour
    (surface) counts with its length (area). Both empty gives 1.0, one empty 0.0. Raises ValueError when
    shapes or spacing do not fit, or the tolerance is negative. Source: Nikolov et al., arXiv 1809.04430.
    """
    predicted, true = _masks(prediction, reference)
    if predicted.ndim not in (2, 3) or len(spacing) != predicted.ndim:
        raise ValueError(
            f"masks of {predicted.ndim} axes and a spacing of {len(spacing)}: give 2 or 3 of both"
        )
    if not all(step > 0 for step in spacing) or not tolerance >= 0:
        raise ValueError(f"spacing {tuple(spacing)} must be positive, tolerance {tolerance} not negative")
    if not (predicted.any() and true.any()):
        return 1.0 if predicted.any() == true.any() else 0.0
    crop = _common_crop(predicted | true)
    at_predicted, sizes_predicted = surface_elements(predicted[crop], spacing)
    at_true, sizes_true = surface_elements(true[crop], spacing)
    to_true = distance_transform_edt(~at_true, sampling=spacing)
    to_predicted = distance_transform_edt(~at_predicted, sampling=spacing)
    near = sizes_predicted[at_predicted & (to_true <= tolerance)].sum()
    near += sizes_true[at_true & (to_predicted <= tolerance)].sum()
    return float(near / (sizes_predicted[at_predicted].sum() + sizes_true[at_true].sum()))


def nsd_tolerance(
    spacing: Sequence[float], unit: str, millimetres: float = 2.0, pixels: float = 2.0
) -> float:
    """The tolerance of the NSD in the unit of a spacing: millimetres where it is clinical, pixels where it is not.

    unit: of the spacing. In "mm", "cm" or "m" it is the given length; otherwise (microscopy, or no spacing) so many
    pixels of the mean spacing, since a few millimetres would reach across a whole micrograph.
    """
    if unit in CLINICAL_UNITS:
        return millimetres / CLINICAL_UNITS[unit]
    return pixels * float(np.mean(spacing))


def box_from_mask(
    mask: npt.ArrayLike, rng: np.random.Generator, max_growth: float = 0.05
) -> npt.NDArray[np.float64]:
    """A box as a person would draw it: a little too large, never too small.

    Each edge of the bounding box of mask (H, W) moves outwards by 0 to max_growth of the box's side, drawn
    anew for each, and stops at the image's border. Returns (4,) float64, half-open (r0, c0, r1, c1). Four
    numbers are drawn from rng whatever the mask, so a seed replays a whole run. Raises ValueError for an
    empty mask.
    """
    growth = rng.uniform(0, max_growth, size=4)
    bbox = bbox_of(mask)
    if bbox is None:
        raise ValueError("an empty mask has no box")
    top, left, bottom, right = (growth * np.tile((bbox.height, bbox.width), 2)).tolist()
    height, width = np.shape(mask)
    return bbox.grown(top, left, bottom, right).intersect(Box.of_plane((height, width))).array()


def _masks(
    prediction: npt.ArrayLike, reference: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    predicted, true = np.asarray(prediction) != 0, np.asarray(reference) != 0
    if predicted.shape != true.shape:
        raise ValueError(f"the masks' shapes differ: {predicted.shape} and {true.shape}")
    return predicted, true


def _common_crop(inside: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """The bounding box of a mask with any number of axes, as slices; it must not be empty."""
    slices = []
    for axis in range(inside.ndim):
        others = tuple(other for other in range(inside.ndim) if other != axis)
        hits = np.flatnonzero(inside.any(axis=others))
        slices.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(slices)
