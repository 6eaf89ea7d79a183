"""A sheet of small pictures of cases with the outlines of their objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from napari_medsam.curation.case import Case
from napari_medsam.curation.case_files import read_case
from napari_medsam.curation.manifest import class_entry

TILE = 200
_COLUMNS = 6
_CAPTION = 14


def sheet(dataset: Path, stems: Sequence[str]) -> Image.Image:
    """One tile a case, outlines in the colours of its classes; of a volume the plane with most foreground."""
    rows = max(1, math.ceil(len(stems) / _COLUMNS))
    picture = Image.new("RGB", (_COLUMNS * (TILE + 4), rows * (TILE + _CAPTION + 4)), "white")
    draw = ImageDraw.Draw(picture)
    for number, stem in enumerate(stems):
        case = read_case(dataset / f"{stem}.npz", predictions=False)
        left, top = number % _COLUMNS * (TILE + 4), number // _COLUMNS * (TILE + _CAPTION + 4)
        picture.paste(Image.fromarray(tile(case)), (left, top))
        draw.text((left, top + TILE), stem[3:-17][:32], fill="black")
    return picture


def tile(case: Case) -> npt.NDArray[np.uint8]:
    """(TILE, TILE, 3) uint8: a plane of a case, fitted with pixels made square, objects outlined."""
    from skimage.segmentation import find_boundaries

    imgs, gts = case.imgs, case.gts
    if gts.ndim == 3:
        number = int(np.count_nonzero(gts, axis=(1, 2)).argmax())
        imgs, gts = np.repeat(imgs[number][..., None], 3, axis=2), gts[number]
    height, width = gts.shape[0] * case.spacing[-2], gts.shape[1] * case.spacing[-1]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    out = np.zeros((TILE, TILE, 3), np.uint8)
    small = np.asarray(Image.fromarray(imgs).resize(size, Image.Resampling.BOX)).copy()
    labels = np.asarray(Image.fromarray(gts.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    edges = find_boundaries(labels, mode="inner")
    colours = np.zeros((max(item.label for item in case.objects) + 1, 3), np.uint8)
    for item in case.objects:
        text = class_entry(item.class_id, item.class_name).colour
        colours[item.label] = [int(text[i : i + 2], 16) for i in (1, 3, 5)]
    small[edges] = colours[labels[edges]]
    out[: size[1], : size[0]] = small
    return out
