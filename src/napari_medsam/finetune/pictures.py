"""Pictures of a verdict: a held-out object with its true, current and new contours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_medsam.finetune.verdict import Judged, worst_first
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, apply_window, resolve_contrast
from napari_medsam.image.plane import Plane

Colour = tuple[int, int, int]

TRUTH, CURRENT, NEW = (255, 255, 255), (86, 180, 233), (230, 159, 0)
"""Colours of the contours: white, and two of Okabe and Ito's that people with any colour vision tell apart."""

SIDE = 320
ROOM = 1.6


def draw_worst(judged: Sequence[Judged], folder: Path, most: int = 6) -> list[str]:
    """Write PNGs of the objects the new decoder finds hardest, at most one round of cases after the other.

    Returns the file names, the worst first; none for no objects.
    """
    names = []
    for number, one in enumerate(worst_first(judged)[:most], start=1):
        names.append(f"worst_{number}.png")
        Image.fromarray(picture(one)).save(folder / names[-1])
    return names


def picture(one: Judged) -> npt.NDArray[np.uint8]:
    """The surroundings of an object with contours, (h, w, 3) uint8, the longer side `SIDE` pixels."""
    masks = [(one.full_truth(), TRUTH)]
    for role, colour in (("current", CURRENT), ("new", NEW)):
        if role in one.predictions:
            masks.append((one.predictions[role].full(one.plane.shape), colour))
    return contoured(one.plane, around(one.box, one.plane.shape), masks)


def contoured(
    plane: Plane, window: Box, masks: Sequence[tuple[npt.NDArray[np.bool_], Colour]]
) -> npt.NDArray[np.uint8]:
    """A window of a plane, (h, w, 3) uint8, the longer side `SIDE` pixels, with the contours of masks (H, W) of the
    whole plane, the later ones on top."""
    scale = SIDE / window.longest
    shape = (max(1, round(window.height * scale)), max(1, round(window.width * scale)))
    pixels = apply_window(plane.read(*window.corner, *window.shape), resolve_contrast(plane, Contrast()))
    drawn = np.array(Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BICUBIC).convert("RGB"))
    for mask, colour in masks:
        drawn[_contour(mask[window.slices], shape)] = colour
    return drawn


def around(box: npt.ArrayLike, shape: tuple[int, int]) -> Box:
    """A square window around a box (r0, c0, r1, c1) with some room, cut at the edges of a plane of `shape`."""
    drawn = Box(*np.asarray(box, np.float64).tolist())
    (row, col), half = drawn.centre, ROOM * max(drawn.longest, 8) / 2
    window = Box(int(row - half), int(col - half), int(row + half) + 1, int(col + half) + 1)
    return window.intersect(Box.of_plane(shape))


def _contour(mask: npt.NDArray[np.bool_], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The rim of a mask, enlarged to `shape` first."""
    from skimage.segmentation import find_boundaries

    large = np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))
    rim: npt.NDArray[np.bool_] = find_boundaries(large, mode="inner")
    return rim
