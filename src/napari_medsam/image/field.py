"""The region of a plane that one embedding covers, and the pixels the encoder sees of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import csr_array

from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, Window, as_rgb, resolve_contrast, window_channels
from napari_medsam.image.plane import Plane

Resample = Literal["area", "bilinear", "bicubic"]
Kind = Literal["whole", "grid", "centred"]
# Read a region in tiles of this side, on multiples of it: bounds memory, and meets the usual chunk borders.
_TILE = 2048


@dataclass(frozen=True)
class Frame:
    """How a model wants a field: its input side and how the field is fitted into it.

    size: side of the model's square input in pixels.
    squash: False fits the longest side and leaves the rest to zero padding at the bottom and right; True
        stretches both sides to `size`.
    resample: "area" averages exactly what each output pixel covers (and interpolates linearly where it
        enlarges); "bilinear" and "bicubic" are Pillow's filters, which widen when they shrink an image.
    """

    size: int = 256
    squash: bool = False
    resample: Resample = "area"

    def shape(self, field: Field) -> tuple[int, int]:
        """(h', w') of the field's content inside the frame; never under one pixel."""
        if self.squash:
            return self.size, self.size
        longest = max(field.height, field.width)
        return (
            max(1, int(field.height * self.size / longest + 0.5)),
            max(1, int(field.width * self.size / longest + 0.5)),
        )

    def scale(self, field: Field) -> tuple[float, float]:
        """Frame pixels per plane pixel along (row, col)."""
        height, width = self.shape(field)
        return height / field.height, width / field.width


@dataclass(frozen=True)
class Field:
    """A rectangle of a plane, in whole plane pixels, always inside the plane."""

    row: int
    col: int
    height: int
    width: int
    kind: Kind = "whole"

    @property
    def box(self) -> Box:
        """The pixels it covers, in whole numbers."""
        return Box(self.row, self.col, self.row + self.height, self.col + self.width)

    @classmethod
    def of(cls, box: Box, kind: Kind) -> Field:
        """The field of a box in whole numbers."""
        return cls(*box.corner, *box.shape, kind)

    def to_frame(self, boxes: npt.ArrayLike, frame: Frame) -> npt.NDArray[np.float32]:
        """Boxes (n, 4) in plane pixels -> (n, 4) float32 in frame pixels, both (r0, c0, r1, c1)."""
        plane = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        corner = np.array([self.row, self.col], dtype=np.float64)
        inner: npt.NDArray[np.float64] = (plane - np.tile(corner, 2)) * np.tile(frame.scale(self), 2)
        return inner.astype(np.float32)


def whole_field(shape: tuple[int, int]) -> Field:
    """The field that covers an entire plane of shape (H, W)."""
    return Field(0, 0, int(shape[0]), int(shape[1]), "whole")


def field_window(plane: Plane, contrast: Contrast, field: Field) -> Window:
    """The limits a contrast means for a field: on the field itself where it is centred, else on the plane.

    A centred field surely holds an object, which the percentiles of the whole plane can leave a small part of the
    range; a field without one would have its noise stretched. Raises ImageError as `resolve_contrast` does.
    """
    return resolve_contrast(plane, contrast, field.box if field.kind == "centred" else None)


def read_field(plane: Plane, field: Field, window: Window, frame: Frame) -> npt.NDArray[np.uint8]:
    """Read a field as the model wants it: contrast first, then resized.

    Returns (h', w', 3) uint8 with (h', w') = `frame.shape(field)`; padding is the model's business. Reads the
    coarsest pyramid level that still has a pixel for each frame pixel, in tiles, so that memory stays bounded
    however large the region. Raises ValueError for a field that leaves the plane, ImageError when reading
    fails.
    """
    if field.box.empty or not Box.of_plane(plane.shape).contains(field.box):
        raise ValueError(f"{field} leaves the plane of shape {plane.shape}")
    shape = frame.shape(field)
    level = _pick_level(plane, field, shape)
    region = plane.at_level(field.box, level)
    if frame.resample == "area":
        return as_rgb(_read_area(plane, level, region, window, shape))
    return _read_filtered(plane, level, region, window, shape, frame.resample)


def _pick_level(plane: Plane, field: Field, shape: tuple[int, int]) -> int:
    best = 0
    for level in range(1, len(plane.levels)):
        part = plane.at_level(field.box, level)
        if part.height >= shape[0] and part.width >= shape[1]:
            best = level
    return best


def _tiles(start: int, stop: int) -> Iterator[tuple[int, int]]:
    edges = [start, *range((start // _TILE + 1) * _TILE, stop, _TILE), stop]
    yield from pairwise(edges)


def _read_area(
    plane: Plane, level: int, region: Box, window: Window, shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """(h', w', k) uint8: the region's windowed channels, resampled tile by tile."""
    r0, c0, r1, c1 = region
    level_height, level_width = plane.level_shape(level)
    rows = _weights(r0, r1, shape[0], level_height)
    cols = _weights(c0, c1, shape[1], level_width)
    channels = len(window.channels)
    packed = Window(window.limits, tuple(range(channels)))
    out = np.zeros((*shape, channels), dtype=np.float32)
    for top, bottom in _tiles(int(rows.first), int(rows.last)):
        for left, right in _tiles(int(cols.first), int(cols.last)):
            pixels = plane.read(top, left, bottom - top, right - left, level, window.channels)
            _accumulate(out, window_channels(pixels, packed), rows.part(top, bottom), cols.part(left, right))
    out += 0.5  # halves round up
    return out.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Weights:
    """A resampling along one axis: (size, last - first) weights over source pixels first..last."""

    matrix: csr_array[Any, tuple[int, int]]
    first: int
    last: int

    def part(self, start: int, stop: int) -> tuple[slice, csr_array[Any, tuple[int, int]]]:
        """The rows that touch source pixels start..stop, and their weights."""
        columns = self.matrix[:, start - self.first : stop - self.first].tocsr()
        touched = np.flatnonzero(np.diff(columns.indptr))
        used = slice(int(touched[0]), int(touched[-1]) + 1)
        return used, columns[used]


def _weights(start: float, stop: float, size: int, length: int) -> _Weights:
    """Weights that bring source interval [start, stop) of an axis `length` long to `size` pixels.

    Shrinking averages the source by the area each output pixel covers; enlarging interpolates linearly
    between pixel centres, the border pixel repeated.
    """
    step = (stop - start) / size
    if step >= 1:
        edges = start + step * np.arange(size + 1)
        edges[-1] = min(edges[-1], length)
        count = int(np.ceil(step)) + 1
        source = np.floor(edges[:-1, None] + 1e-9).astype(np.int64) + np.arange(count)
        overlap = np.minimum(source + 1, edges[1:, None]) - np.maximum(source, edges[:-1, None])
        values = np.where(overlap > 1e-6, overlap, 0)
        values /= values.sum(axis=1, keepdims=True)
    else:
        centres = start + step * (np.arange(size) + 0.5) - 0.5
        lower = np.floor(centres).astype(np.int64)
        source = lower[:, None] + np.arange(2)
        values = np.stack([1 - (centres - lower), centres - lower], axis=1)
    source = source.clip(0, length - 1)
    first, last = int(source[values > 0].min()), int(source[values > 0].max()) + 1
    keep = values > 0
    target = np.broadcast_to(np.arange(size)[:, None], source.shape)
    entries = (values[keep].astype(np.float32), (target[keep], source[keep] - first))
    return _Weights(csr_array(entries, shape=(size, last - first)), first, last)


def _accumulate(
    out: npt.NDArray[np.float32],
    tile: npt.NDArray[np.uint8],
    rows: tuple[slice, Any],
    cols: tuple[slice, Any],
) -> None:
    """Add one tile's share to the (h', w', k) output."""
    height, width, channels = tile.shape
    into_rows, row_weights = rows
    into_cols, col_weights = cols
    tall = row_weights @ tile.reshape(height, width * channels).astype(np.float32)
    turned = tall.reshape(-1, width, channels).transpose(1, 0, 2).reshape(width, -1)
    share = (col_weights @ turned).reshape(col_weights.shape[0], -1, channels)
    out[into_rows, into_cols] += share.transpose(1, 0, 2)


def _read_filtered(
    plane: Plane,
    level: int,
    region: Box,
    window: Window,
    shape: tuple[int, int],
    resample: Resample,
) -> npt.NDArray[np.uint8]:
    """(h', w', 3) uint8 through a Pillow filter; a large region is first averaged to twice the frame."""
    (top, left), (height, width) = region.outward().corner, region.outward().shape
    inside = region.moved(-top, -left)
    box = inside.c0, inside.r0, inside.c1, inside.r1
    if height * width <= _TILE * _TILE:
        pixels = plane.read(top, left, height, width, level, window.channels)
        packed = Window(window.limits, tuple(range(len(window.channels))))
        content = as_rgb(window_channels(pixels, packed))
    else:
        inner = (min(height, 2 * shape[0]), min(width, 2 * shape[1]))
        content = as_rgb(_read_area(plane, level, region, window, inner))
        box = (0.0, 0.0, float(inner[1]), float(inner[0]))
    kernel = Image.Resampling.BICUBIC if resample == "bicubic" else Image.Resampling.BILINEAR
    resized = Image.fromarray(content).resize((shape[1], shape[0]), kernel, box=box)
    return np.asarray(resized, dtype=np.uint8)
