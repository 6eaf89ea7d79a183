"""One 2D image out of a layer or file, read lazily: only the pixels asked for are ever touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from napari_medsam.errors import ImageError
from napari_medsam.geometry import Box


class LazyArray(Protocol):
    """What a plane needs of an array: numpy, dask, zarr, h5py and memory maps all have it."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Plane:
    """One 2D image out of a layer or file.

    levels: arrays with the same axes, finest first; one level for an ordinary image.
    rgb: whether the channel axis is RGB or RGBA.
    spacing: size of a pixel along (row, col).
    name: layer or file name, used in messages.
    index: one entry for each axis of the finest level: the position on axes that are not displayed, None on
        displayed and channel axes. () means None everywhere.
    displayed: the data axes that are the plane's (row, col).
    channel_axis: the data axis that holds channels, or None.

    Use `Plane.from_array`, which checks and completes these.
    """

    levels: tuple[LazyArray, ...]
    rgb: bool
    spacing: tuple[float, float] = (1.0, 1.0)
    name: str = "image"
    index: tuple[int | None, ...] = ()
    displayed: tuple[int, int] = (0, 1)
    channel_axis: int | None = None

    @classmethod
    def from_array(
        cls,
        data: Any,
        *,
        rgb: bool | None = None,
        displayed: tuple[int, int] = (0, 1),
        index: Sequence[int | None] | None = None,
        channel_axis: int | None = None,
        spacing: tuple[float, float] = (1.0, 1.0),
        name: str = "image",
    ) -> Plane:
        """Describe a plane of an array without reading it.

        data: array-like of any real dtype, or a list of them (a pyramid, finest first).
        rgb: None guesses: a 3D array whose last axis is 3 or 4 long, no index and no channel axis named.
        displayed: the plane's (row, col) axes; (1, 0) is the transposed plane. Where the two axes named are
            not both free (indexed, or channels), they count among the free ones: for a (Z, H, W) array and
            index (5, None, None) the default (0, 1) means H and W.
        index: one entry for each data axis, None for the displayed and channel axes.
        Raises ImageError for what is no real 2D image: 0-d, empty, object or complex data, an axis too many.
        """
        levels = _as_levels(data, name)
        shape = levels[0].shape
        if rgb is None:
            indexed = index is not None and any(entry is not None for entry in index)
            rgb = len(shape) == 3 and shape[-1] in (3, 4) and channel_axis is None and not indexed
        if rgb:
            channel_axis = len(shape) - 1
            if shape[-1] not in (3, 4):
                raise ImageError(
                    f"{name}: an RGB image needs 3 or 4 values along its last axis, not {shape[-1]}. "
                    "Pass rgb=False, or channel_axis for other channels."
                )
        channel_axis = _checked_channel_axis(channel_axis, len(shape), name)
        entries = _checked_index(index, shape, channel_axis, name)
        return cls(
            levels=levels,
            rgb=rgb,
            spacing=(float(spacing[0]), float(spacing[1])),
            name=name,
            index=entries,
            displayed=_checked_displayed(displayed, entries, channel_axis, shape, name),
            channel_axis=channel_axis,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the finest level."""
        return self.level_shape(0)

    @property
    def n_channels(self) -> int:
        """1 for grey, 3 for RGB and RGBA, else the length of the channel axis."""
        if self.channel_axis is None:
            return 1
        return 3 if self.rgb else int(self.levels[0].shape[self.channel_axis])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The pixels' dtype, in native byte order."""
        native: np.dtype[Any] = np.dtype(self.levels[0].dtype).newbyteorder("=")
        return native

    def level_shape(self, level: int) -> tuple[int, int]:
        """(H, W) of one pyramid level."""
        shape = self.levels[level].shape
        return int(shape[self.displayed[0]]), int(shape[self.displayed[1]])

    def at_level(self, box: Box, level: int) -> Box:
        """A box of the plane in pixels of a pyramid level: fractional where that is coarser."""
        (fine_h, fine_w), (h, w) = self.shape, self.level_shape(level)
        return Box(box.r0 * h / fine_h, box.c0 * w / fine_w, box.r1 * h / fine_h, box.c1 * w / fine_w)

    def read(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        level: int = 0,
        channels: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Read a region of one level: (h, w), or (h, w, C) where the plane has a channel axis.

        row, col, height, width are pixels of that level and must lie inside it (ValueError otherwise).
        channels: read only these, in this order; None reads all but alpha. The dtype is the data's own.
        Raises ImageError naming the plane when the array behind it cannot be read.
        """
        total_height, total_width = self.level_shape(level)
        if not (0 <= row <= row + height <= total_height and 0 <= col <= col + width <= total_width):
            raise ValueError(f"region {(row, col, height, width)} leaves level {level} of {self.name}")
        wanted = list(range(self.n_channels) if channels is None else channels)
        first = min(wanted)
        key = self._key(row, col, height, width, level, slice(first, max(wanted) + 1))
        try:
            pixels = np.asarray(self.levels[level][key])
        except Exception as error:  # any array library, any storage: each has errors of its own
            message = f"{self.name}: its pixels could not be read ({error}). Is the file still there?"
            raise ImageError(message) from error
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        pixels = pixels.transpose(self._order())
        if self.channel_axis is None:
            return pixels
        steps = [channel - first for channel in wanted]
        return pixels if steps == list(range(pixels.shape[2])) else pixels[:, :, steps]

    def _key(
        self, row: int, col: int, height: int, width: int, level: int, channels: slice
    ) -> tuple[int | slice, ...]:
        finest, coarse = self.levels[0].shape, self.levels[level].shape
        index = self.index or (None,) * len(finest)
        # A pyramid may also be coarser along an axis that is not displayed.
        key: list[int | slice] = [
            0 if entry is None else min(entry * coarse[axis] // finest[axis], coarse[axis] - 1)
            for axis, entry in enumerate(index)
        ]
        key[self.displayed[0]] = slice(row, row + height)
        key[self.displayed[1]] = slice(col, col + width)
        if self.channel_axis is not None:
            key[self.channel_axis] = channels
        return tuple(key)

    def _order(self) -> list[int]:
        """Transposition that brings what is left after indexing into (row, col[, channel]) order."""
        wanted = list(self.displayed) + ([] if self.channel_axis is None else [self.channel_axis])
        return [sorted(wanted).index(axis) for axis in wanted]


def _as_levels(data: Any, name: str) -> tuple[LazyArray, ...]:
    pyramid = isinstance(data, Sequence) and len(data) > 0 and all(hasattr(level, "shape") for level in data)
    levels: list[Any] = list(data) if pyramid else [data if hasattr(data, "shape") else np.asarray(data)]
    for level in levels:
        _check_array(level, name)
    if any(len(level.shape) != len(levels[0].shape) for level in levels):
        raise ImageError(f"{name}: the pyramid's levels differ in their number of axes.")
    if any(_size(a) < _size(b) for a, b in pairwise(levels)):
        raise ImageError(f"{name}: the pyramid's levels must come finest first.")
    return tuple(levels)


def _size(level: LazyArray) -> int:
    return int(np.prod([int(n) for n in level.shape], dtype=object))


def _check_array(array: LazyArray, name: str) -> None:
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biuf":
        raise ImageError(f"{name}: pixels of type {dtype} are not intensities. Convert them to numbers.")
    if len(array.shape) < 2:
        raise ImageError(f"{name}: an image needs two axes, this array has the shape {tuple(array.shape)}.")
    if 0 in array.shape:
        raise ImageError(f"{name}: the image is empty (shape {tuple(array.shape)}). Choose another one.")


def _checked_channel_axis(axis: int | None, ndim: int, name: str) -> int | None:
    if axis is None:
        return None
    if not -ndim <= axis < ndim:
        raise ImageError(f"{name}: there is no axis {axis} for the channels; the data has {ndim} axes.")
    return axis % ndim


def _checked_index(
    index: Sequence[int | None] | None, shape: tuple[int, ...], channel_axis: int | None, name: str
) -> tuple[int | None, ...]:
    if index is None:
        return (None,) * len(shape)
    if len(index) != len(shape):
        raise ImageError(f"{name}: the index needs an entry for each of {len(shape)} axes, not {len(index)}.")
    entries: list[int | None] = []
    for axis, (entry, length) in enumerate(zip(index, shape, strict=True)):
        if entry is None or axis == channel_axis:
            entries.append(None)
        elif not -length <= entry < length:
            raise ImageError(f"{name}: index {entry} leaves axis {axis}, which is {length} long.")
        else:
            entries.append(int(entry) % int(length))
    return tuple(entries)


def _checked_displayed(
    displayed: tuple[int, int],
    index: tuple[int | None, ...],
    channel_axis: int | None,
    shape: tuple[int, ...],
    name: str,
) -> tuple[int, int]:
    free = [axis for axis, entry in enumerate(index) if entry is None and axis != channel_axis]
    if len(free) != 2:
        raise ImageError(
            f"{name}: {len(free)} axes of the shape {tuple(shape)} are left for a 2D plane. "
            "Name the channel axis, and an index for each axis that is not displayed."
        )
    axes = [axis % len(shape) if -len(shape) <= axis < len(shape) else axis for axis in displayed]
    if sorted(axes) == free:
        return axes[0], axes[1]
    if sorted(displayed) != [0, 1]:
        raise ImageError(
            f"{name}: the displayed axes {tuple(displayed)} are not the free ones {tuple(free)}."
        )
    return free[displayed[0]], free[displayed[1]]
