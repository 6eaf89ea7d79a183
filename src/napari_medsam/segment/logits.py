"""Low-resolution logits of one object -> its mask in the plane, computed only where it can be positive; and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import csr_array

from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, Frame

Matrix = csr_array[Any, tuple[int, int]]

LOGITS = 256
"""Logits a side that SAM's decoders give, whatever the frame; a smaller frame has one for each of its pixels."""


def logit_pitch(frame: Frame) -> float:
    """Frame pixels from one logit to the next."""
    return max(1.0, frame.size / LOGITS)


def mask_from_logits(
    logits: npt.NDArray[np.float32], field: Field, frame: Frame
) -> tuple[int, int, npt.NDArray[np.bool_]]:
    """Enlarge logits (L, L), which cover the whole frame, to the field and keep what is above zero.

    Gives the same mask as enlarging the logits to the frame, cropping the padding and resizing the content to
    the field, each bilinearly between pixel centres (align_corners=False), without computing the rest of the
    field. Returns the plane pixel (row, col) of the mask's corner and the mask, (h, w) bool, tight; when no
    logit is positive, 0, 0 and a mask of shape (0, 0).
    """
    content = frame.shape(field)
    rows = _Axis(field.height, content[0], frame.size, logits.shape[0])
    cols = _Axis(field.width, content[1], frame.size, logits.shape[1])
    found = logits[: rows.used, : cols.used] > 0
    if not found.any():
        return 0, 0, np.zeros((0, 0), dtype=bool)
    top, bottom = rows.reach(*_extent(found, axis=0))
    left, right = cols.reach(*_extent(found, axis=1))
    # Both axes at once are too much for one sparse product: rows first, then columns on the transpose.
    tall = rows.weights(top, bottom) @ logits
    mask = (cols.weights(left, right) @ np.ascontiguousarray(tall.T)).T > 0
    if not mask.any():
        return 0, 0, np.zeros((0, 0), dtype=bool)
    (r0, r1), (c0, c1) = _extent(mask, axis=0), _extent(mask, axis=1)
    tight = np.ascontiguousarray(mask[r0:r1, c0:c1])
    return field.row + top + r0, field.col + left + c0, tight


def logits_in_field(
    logits: npt.NDArray[np.float32], field: Field, frame: Frame, box: Box
) -> npt.NDArray[np.float32]:
    """Enlarge logits (L, L) to field pixels and return those of a box of the plane, in whole pixels inside the field.

    Returns (h, w) float32.
    """
    content = frame.shape(field)
    rows = _Axis(field.height, content[0], frame.size, logits.shape[0])
    cols = _Axis(field.width, content[1], frame.size, logits.shape[1])
    down, across = box.moved(-field.row, -field.col).slices
    tall = rows.weights(down.start, down.stop) @ logits
    wide = cols.weights(across.start, across.stop) @ np.ascontiguousarray(tall.T)
    return np.ascontiguousarray(wide.T, dtype=np.float32)


def shares_of_logits(part: npt.NDArray[np.bool_], field: Field, frame: Frame) -> npt.NDArray[np.uint8]:
    """The share of each logit that a mask covers: the way back from a mask to logits.

    part: the mask on the field, (height, width) of it. Returns (h, w) uint8, 255 for all of a logit, over the logits of
    the field's content. Where the content ends within a logit, the mask is taken to go on in the rest of it as it ends.
    """
    pitch = logit_pitch(frame)
    height, width = (math.ceil(side / pitch) for side in frame.shape(field))
    per_row, per_col = frame.scale(field)
    reach = np.array(
        [height * pitch / per_row, width * pitch / per_col]
    )  # what the logits cover, in plane pixels
    room = np.maximum(np.ceil(reach - 1e-6).astype(int) - part.shape, 0)
    filled = Image.fromarray(np.pad(part.astype(np.uint8) * 255, ((0, room[0]), (0, room[1])), "edge"))
    smaller = height < reach[0] or width < reach[1]
    how = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    bottom, right = np.minimum(reach, (filled.height, filled.width)).tolist()
    return np.asarray(filled.resize((width, height), how, box=(0, 0, right, bottom)))


@dataclass(frozen=True)
class _Axis:
    """One axis on its way from logits over the frame's content to the field."""

    length: int  # of the field
    content: int  # frame pixels that show the field
    frame: int  # frame pixels in all
    logits: int  # logits in all

    @property
    def used(self) -> int:
        """Leading logits that bear on the content."""
        last = (self.content - 0.5) * self.logits / self.frame - 0.5
        return min(self.logits, max(0, int(np.floor(last))) + 2)

    def reach(self, first: int, stop: int) -> tuple[int, int]:
        """The field pixels that logits first..stop can make positive, with a margin."""
        spread = 1 if self.logits == self.frame else 2  # two interpolations reach further than one
        per_logit = self.length / self.content * self.frame / self.logits
        low = int(np.floor((first - spread) * per_logit))
        high = int(np.ceil((stop + spread) * per_logit))
        return max(0, low), min(self.length, high)

    def weights(self, start: int, stop: int) -> Matrix:
        """(stop - start, logits) weights that give field pixels start..stop."""
        to_field = _interpolation(self.content, self.length, start, stop)
        if self.logits == self.frame == self.content:
            return to_field
        to_frame = _interpolation(self.logits, self.frame, 0, self.content)
        return (to_field @ to_frame).tocsr()


def _interpolation(source: int, target: int, start: int, stop: int) -> Matrix:
    """Rows start..stop of the bilinear resize of `source` to `target` pixels, the border pixel repeated."""
    # In float32 as the reference does it: the two then agree to the last bit or so.
    scale = np.float32(source / target)
    places = (np.arange(start, stop, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    places = np.maximum(places, 0)
    lower = np.minimum(places.astype(np.int64), source - 1)
    upper = np.minimum(lower + 1, source - 1)
    share = (places - lower).astype(np.float32)
    rows = np.arange(stop - start)
    entries = (
        np.concatenate([1 - share, share]),
        (np.concatenate([rows, rows]), np.concatenate([lower, upper])),
    )
    return csr_array(entries, shape=(stop - start, source))


def _extent(hits: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """(first, last + 1) of the True entries along an axis; there must be one."""
    places = np.flatnonzero(np.any(hits, axis=1 - axis))
    return int(places[0]), int(places[-1]) + 1
