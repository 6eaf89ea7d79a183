"""A person who clicks, simulated: where the first click goes, and where the next one goes when the mask is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Click:
    """A click on the pixel (row, col); positive says that the object is there."""

    row: int
    col: int
    positive: bool


def next_click(target: Mask, found: Mask, rng: np.random.Generator | None = None) -> Click | None:
    """Where somebody who wants `target` clicks when shown `found`: in the largest region that is wrong.

    target, found: (H, W) bool. Without rng the middle of that region, the place furthest from its edge, as interactive
    segmentation is usually measured; with rng a random place well inside a region, larger ones more often. An empty
    `found` gives a first click. None when nothing is wrong. Source: Sofiiuk et al., arXiv 2102.06583.
    """
    wrong = target ^ found
    if not wrong.any():
        return None
    regions, count = _regions(target & ~found, found & ~target)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    chosen = int(np.argmax(sizes)) if rng is None else int(rng.choice(count, p=sizes / sizes.sum()))
    row, col = _inside(regions == chosen + 1, rng)
    return Click(row, col, bool(target[row, col]))


def region_of(click: Click, target: Mask, found: Mask) -> Mask:
    """The connected region that is wrong in `found` and that a click is to correct: (H, W) bool."""
    wrong = target & ~found if click.positive else found & ~target
    regions, _ = ndimage.label(wrong)
    number = regions[click.row, click.col]
    region: Mask = (regions == number) & (number > 0)
    return region


def _regions(missed: Mask, extra: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """What is missing and what is too much, in connected regions numbered from 1."""
    one, many = ndimage.label(missed)
    two, more = ndimage.label(extra)
    return np.where(two > 0, two + many, one), many + more


def _inside(region: Mask, rng: np.random.Generator | None) -> tuple[int, int]:
    """The pixel furthest from the region's edge, or one of those at least half as far from it."""
    rows, cols = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    r0, c0 = int(rows[0]), int(cols[0])
    part = np.pad(region[r0 : rows[-1] + 1, c0 : cols[-1] + 1], 1)  # the image's edge is an edge too
    depth = ndimage.distance_transform_edt(part)
    if rng is None:
        row, col = np.unravel_index(int(np.argmax(depth)), depth.shape)
    else:
        places = np.argwhere(depth >= rng.uniform(0.2, 1.0) * depth.max())
        row, col = places[rng.integers(len(places))]
    return int(row) + r0 - 1, int(col) + c0 - 1
