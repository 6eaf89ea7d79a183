"""Outlines and lines as clicks: a few inside a polygon, a few along a path. The same shape gives the same ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from napari_medsam.segment.prompt import Point

RASTER = 256  # an outline is looked at on as many pixels along its longer side at most
LEAST_DEPTH = 0.5  # a further click lies at least so deep inside, over the depth of the first
STEP_PX = 8.0


def inner_clicks(vertices: npt.ArrayLike, most: int = 3) -> tuple[Point, ...]:
    """Plus clicks deep inside a polygon, the deepest first; at least one.

    vertices: (k, 2) (row, col), whole numbers at pixel centres. Each click is the point farthest from the outline and
    from the discs around the clicks before it that touch the outline; one that lies under half as deep is left out.
    """
    outline = np.asarray(vertices, dtype=np.float64)
    corner, span = outline.min(axis=0), float(np.ptp(outline, axis=0).max())
    scale = min(1.0, (RASTER - 1) / span) if span > 0 else 1.0
    pixels = (outline - corner) * scale
    height, width = np.ceil(pixels.max(axis=0)).astype(int) + 1
    canvas = Image.new("1", (int(width), int(height)))
    ImageDraw.Draw(canvas).polygon([(col, row) for row, col in pixels.tolist()], fill=1)
    inside = np.pad(np.asarray(canvas, dtype=bool), 1)
    rows, cols = np.indices(inside.shape)
    found: list[Point] = []
    first = 0.0
    while len(found) < most:
        depth = distance_transform_edt(inside)
        row, col = np.unravel_index(int(np.argmax(depth)), depth.shape)
        deepest = float(depth[row, col])
        first = first or deepest
        if deepest < max(1.0, LEAST_DEPTH * first):
            break
        r, c = (np.array([row, col]) - 1) / scale + corner
        found.append(Point(float(r), float(c)))
        inside &= np.hypot(rows - row, cols - col) > deepest
    return tuple(found)


def clicks_along(path: npt.ArrayLike, most: int = 5) -> tuple[Point, ...]:
    """Plus clicks at even distances along a path, none at its very ends; at least one.

    path: (k, 2) (row, col), whole numbers at pixel centres. A short one has fewer: one for each 8 pixels.
    """
    places = np.asarray(path, dtype=np.float64)
    steps = np.hypot(*np.diff(places, axis=0).T)
    gone = np.concatenate([[0.0], np.cumsum(steps)])
    count = int(np.clip(gone[-1] // STEP_PX, 1, most))
    wanted = (np.arange(count) + 0.5) / count * gone[-1]
    rows, cols = (np.interp(wanted, gone, places[:, axis]) for axis in (0, 1))
    return tuple(Point(float(row), float(col)) for row, col in zip(rows, cols, strict=True))
