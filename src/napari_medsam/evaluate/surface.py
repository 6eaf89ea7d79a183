"""Contours and surfaces of masks as small elements: where they lie and how long or large each one is.

An element sits at each corner that 2 x 2 pixels (2 x 2 x 2 voxels) share, where these are neither all inside
nor all outside. Its size follows from which of them are inside: marching squares in 2D, marching cubes in 3D.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt


def surface_elements(
    mask: npt.NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Find the surface elements of a mask (2D or 3D bool); outside the array counts as background.

    spacing: size of a pixel along each axis. Returns arrays one longer than the mask along each axis: whether
    an element lies at each corner, and its length (2D) or area (3D) in the unit of spacing, 0 without one.
    """
    codes = _neighbour_codes(mask)
    full = 2 ** (2**mask.ndim) - 1
    return (codes != 0) & (codes != full), _sizes(spacing)[codes]


def _neighbour_codes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """One bit for each pixel around a corner; the first in reading order is the highest bit."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for corner in np.ndindex((2,) * mask.ndim):
        part = padded[tuple(slice(at, at + n + 1) for at, n in zip(corner, mask.shape, strict=True))]
        codes <<= 1
        codes |= part
    return codes


def _sizes(spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Length or area of the element of each neighbour code."""
    if len(spacing) == 2:
        return _contour_lengths(float(spacing[0]), float(spacing[1]))
    # A vector of an area scales, along each axis, with the spacing of the other two.
    face = np.prod(spacing) / np.asarray(spacing, dtype=np.float64)
    sizes = [float(np.linalg.norm(np.array(areas) * face, axis=1).sum()) for areas in _triangle_areas()]
    return np.array(sizes)


def _contour_lengths(row: float, col: float) -> npt.NDArray[np.float64]:
    """Marching squares: a line along an axis where two neighbours are inside, else cut-off corners."""
    lengths = np.empty(16)
    for code in range(16):
        (a, b), (c, d) = [[code >> 3 & 1, code >> 2 & 1], [code >> 1 & 1, code & 1]]
        inside = a + b + c + d
        if inside in (0, 4):
            lengths[code] = 0
        elif inside == 2 and a == b:
            lengths[code] = col
        elif inside == 2 and a == c:
            lengths[code] = row
        else:
            corners = 2 if inside == 2 else 1
            lengths[code] = corners * np.hypot(row, col) / 2
    return lengths


@cache
def _triangle_areas() -> tuple[tuple[tuple[float, ...], ...], ...]:
    """The area vectors of the marching-cubes triangles of each neighbour code, at unit spacing."""
    from skimage.measure import marching_cubes

    table: list[tuple[tuple[float, ...], ...]] = [((0.0, 0.0, 0.0),)] * 256
    for code in range(1, 255):
        bits = np.array([code >> shift & 1 for shift in range(7, -1, -1)])
        # A cube and its complement share one surface; the rarer side has the one that keeps corners apart.
        rarer = 1 - bits if bits.sum() > 4 else bits
        points, faces, *_ = marching_cubes(rarer.reshape(2, 2, 2).astype(float), 0.5, method="lorensen")
        a, b, c = points[faces].transpose(1, 0, 2)
        table[code] = tuple(map(tuple, (np.cross(b - a, c - a) / 2).tolist()))
    return tuple(table)
