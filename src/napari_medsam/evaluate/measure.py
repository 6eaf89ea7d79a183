"""How large lesions are: volume, area, longest diameter and its perpendicular, for each and for the case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from napari_medsam.evaluate.metrics import CLINICAL_UNITS

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Diameters:
    """The longest diameter of a mask in a plane and the longest line at a right angle to it, in the spacing's unit."""

    longest: float
    perpendicular: float


@dataclass(frozen=True)
class Lesion:
    """The size of one labelled object, in millimetres where the spacing is clinical, else in its own unit.

    volume: None in 2D. area: of the plane with the longest diameter, or of the only plane. plane: its number, None
    in 2D.
    """

    label: int
    volume: float | None
    area: float
    longest: float
    perpendicular: float
    plane: int | None


@dataclass(frozen=True)
class Burden:
    """All lesions of a case. unit: "mm", or that of a spacing that is not clinical, such as "pixel"."""

    lesions: tuple[Lesion, ...]
    unit: str

    @property
    def volume(self) -> float | None:
        """Of all lesions, in the unit cubed (mm3); 0.0 without lesions, None in 2D."""
        found = [lesion.volume for lesion in self.lesions]
        return None if None in found else float(sum(volume for volume in found if volume is not None))

    @property
    def area(self) -> float:
        """Sum of the lesions' areas, in the unit squared."""
        return sum(lesion.area for lesion in self.lesions)

    @property
    def longest(self) -> float:
        """Sum of the lesions' longest diameters, as RECIST sums those of its target lesions."""
        return sum(lesion.longest for lesion in self.lesions)


def measure(labels: npt.ArrayLike, spacing: Sequence[float], unit: str = "mm", axis: int = 0) -> Burden:
    """Measure each label of a plane (H, W) or volume (D, H, W); 0 is background.

    spacing: size of a pixel along each axis, in `unit`; "mm", "cm" and "m" give millimetres, any other unit stays.
    axis: of a volume, across the planes in which diameters are taken. All labels 0 give no lesions. Raises ValueError
    when the spacing does not fit. Source: Eisenhauer et al. (RECIST 1.1), Eur J Cancer 45 (2009); the perpendicular
    as in Miller et al. (WHO), Cancer 47 (1981).
    """
    array = np.asarray(labels)
    steps = np.asarray(spacing, dtype=np.float64) * CLINICAL_UNITS.get(unit, 1.0)
    if array.ndim not in (2, 3) or steps.shape != (array.ndim,) or not (steps > 0).all():
        raise ValueError(
            f"labels of shape {array.shape} and a spacing {tuple(spacing)}: give 2 or 3 of both, above 0"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim == 3:
        array, steps = np.moveaxis(array, axis, 0), np.concatenate([steps[[axis]], np.delete(steps, axis)])
    found = [_lesion(label, mask, steps, first) for label, mask, first in _masks(array)]
    return Burden(tuple(found), "mm" if unit in CLINICAL_UNITS else unit)


def diameters(mask: npt.ArrayLike, spacing: Sequence[float]) -> Diameters:
    """The longest diameter of a mask (H, W) and the longest line at a right angle to it.

    Both reach from contour to contour of the mask's convex hull; the contour runs half-way between the centres of
    neighbouring pixels inside and outside, so a single pixel is as long as its side. Of equal longest lines the first
    in reading order counts. An empty mask gives 0.0 and 0.0.
    """
    points = _contour_points(np.asarray(mask) != 0) * np.asarray(spacing, dtype=np.float64)
    if len(points) == 0:
        return Diameters(0.0, 0.0)
    corners = points[ConvexHull(points).vertices]
    apart = np.round(squareform(pdist(corners)), 9)  # so that equal lines are equal on every machine
    first, last = np.unravel_index(int(np.argmax(apart)), apart.shape)
    line = corners[last] - corners[first]
    length = float(np.hypot(*line))
    along = (corners - corners[first]) @ line / length
    across = (corners - corners[first]) @ np.array([-line[1], line[0]]) / length
    return Diameters(length, _widest(along, across))


def _masks(labels: npt.NDArray[np.generic]) -> Iterator[tuple[int, npt.NDArray[np.bool_], int]]:
    """Each label, its mask within its bounding box, and the number of the first plane of that."""
    for label, where in enumerate(find_objects(labels.astype(np.int64)), start=1):
        if where is not None:
            yield label, labels[where] == label, int(where[0].start)


def _lesion(label: int, mask: npt.NDArray[np.bool_], steps: Points, first: int) -> Lesion:
    if mask.ndim == 2:
        size = diameters(mask, steps.tolist())
        area = float(np.count_nonzero(mask) * steps.prod())
        return Lesion(label, None, area, size.longest, size.perpendicular, None)
    sizes = [diameters(plane, steps[1:].tolist()) for plane in mask]
    longest = int(np.argmax([size.longest for size in sizes]))
    return Lesion(
        label,
        volume=float(np.count_nonzero(mask) * steps.prod()),
        area=float(np.count_nonzero(mask[longest]) * steps[1:].prod()),
        longest=sizes[longest].longest,
        perpendicular=sizes[longest].perpendicular,
        plane=first + longest,
    )


def _contour_points(mask: npt.NDArray[np.bool_]) -> Points:
    """Points of the contour among which are all corners of its convex hull: around the ends of each row."""
    rows = np.flatnonzero(mask.any(axis=1)).astype(np.float64)
    inside = mask[mask.any(axis=1)]
    if len(inside) == 0:
        return np.empty((0, 2))
    left = inside.argmax(axis=1).astype(np.float64)
    right = mask.shape[1] - 1.0 - inside[:, ::-1].argmax(axis=1)
    points = [(rows, left - 0.5), (rows, right + 0.5)]
    points += [(rows + half, end) for half in (-0.5, 0.5) for end in (left, right)]
    return np.concatenate([np.stack(pair, axis=1) for pair in points])


def _widest(along: Points, across: Points) -> float:
    """The longest line of a convex polygon across a direction; its two sides are broken lines between corners."""
    order = np.argsort(along)
    along, across = along[order], across[order]
    upper = np.interp(along, *_side(along, across, across >= 0))
    lower = np.interp(along, *_side(along, across, across <= 0))
    return float((upper - lower).max())


def _side(along: Points, across: Points, chosen: npt.NDArray[np.bool_]) -> tuple[Points, Points]:
    """The corners on one side; both ends of the longest line lie on it, so they belong to both sides."""
    chosen = chosen.copy()
    chosen[[0, -1]] = True
    return along[chosen], across[chosen]
