"""How raw intensities become what the model sees. Nothing here changes the user's pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ImageError
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane

PRESETS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "ct": (-500.0, 1000.0),
        "ct-soft": (-160.0, 240.0),  # level 40, width 400
        "ct-lung": (-1350.0, 150.0),  # level -600, width 1500
        "ct-bone": (-500.0, 1300.0),  # level 400, width 1800
    }
)
"""Windows for CT in Hounsfield units, (lo, hi)."""


_MAX_SAMPLES = 2**21
_ENOUGH_PIXELS = 2**18  # a pyramid level this large gives steady percentiles
_BLOCKS = 8  # a plane too large to read is sampled in 8 x 8 blocks: few chunks touched, every part seen


@dataclass(frozen=True)
class Contrast:
    """A choice of contrast, not yet resolved on any plane.

    mode: "auto" takes percentiles of the plane, or of a part of it; "window" takes `window` as it is.
    window: (lo, hi) in raw units for mode "window".
    percentiles: (low, high) in percent, for mode "auto".
    foreground: take percentiles of what is not background: of values above zero, as published for MR; where values
        go below zero, of all but the commonest.
    channels: one to three channels of a plane that has several; None takes RGB as it is, otherwise the first
        three.
    name: how it was chosen, for display and records: "auto", a preset's name, "manual" or "layer".
    Raises ImageError for limits or percentiles that do not ascend, and for no or over three channels.
    """

    mode: Literal["auto", "window"] = "auto"
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    channels: tuple[int, ...] | None = None
    name: str = "auto"
    foreground: bool = False

    def __post_init__(self) -> None:
        if self.mode == "window":
            if self.window is None:
                raise ImageError("A contrast window needs two limits, LO,HI.")
            lo, hi = self.window
            if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
                raise ImageError(f"The contrast window {lo:g},{hi:g} is empty. Give LO,HI with LO under HI.")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ImageError(f"Contrast percentiles must ascend within 0 to 100, not {low:g}, {high:g}.")
        if self.channels is not None and not 1 <= len(self.channels) <= 3:
            raise ImageError(f"Choose one to three channels, not {len(self.channels)}.")

    @classmethod
    def parse(cls, text: str | Contrast) -> Contrast:
        """Read "auto", a preset or "LO,HI"; a Contrast is passed through. ImageError lists the choices."""
        if isinstance(text, Contrast):
            return text
        word = text.strip().lower()
        if word == "auto":
            return cls()
        if word in PRESETS:
            return cls(mode="window", window=PRESETS[word], name=word)
        try:
            lo, hi = (float(part) for part in word.split(","))
        except ValueError:
            choices = ", ".join(["auto", *PRESETS])
            raise ImageError(f"Unknown contrast {text!r}. Choose {choices} or two numbers LO,HI.") from None
        return cls(mode="window", window=(lo, hi), name="manual")


@dataclass(frozen=True)
class Window:
    """A contrast resolved on one plane: (lo, hi) in raw units for each channel used."""

    limits: tuple[tuple[float, float], ...]
    channels: tuple[int, ...]


def resolve_contrast(plane: Plane, contrast: Contrast, within: Box | None = None) -> Window:
    """Find the limits a contrast means on a plane, or on the part `within` of it.

    within: half-open (r0, c0, r1, c1) in plane pixels, inside the plane. Reads at most about two million samples,
    the same ones each time: the coarsest pyramid level with enough pixels, or a regular grid of blocks where that is
    too large. NaN and infinities are left out. 8-bit RGB keeps (0, 255), booleans (0, 1); RGB of other types gets
    joint limits, other channels limits of their own.
    A constant plane or part gives lo == hi; one without any finite pixel (0, 0). Raises ImageError for a channel that
    the plane lacks.
    """
    channels = _channels(plane, contrast)
    if contrast.mode == "window" and contrast.window is not None:
        return Window((contrast.window,) * len(channels), channels)
    if plane.dtype.kind == "b":
        return Window(((0.0, 1.0),) * len(channels), channels)
    if plane.rgb and plane.dtype == np.uint8:
        return Window(((0.0, 255.0),) * len(channels), channels)
    samples = _sample(plane, channels, within or Box.of_plane(plane.shape))
    if plane.rgb:
        return Window((_limits(samples, contrast),) * len(channels), channels)
    limits = tuple(_limits(samples[:, i], contrast) for i in range(len(channels)))
    return Window(limits, channels)


def apply_window(pixels: np.ndarray, window: Window) -> npt.NDArray[np.uint8]:
    """Map raw pixels (h, w) or (h, w, C) of any real dtype to (h, w, 3) uint8.

    lo becomes 0, hi 255, rounded, clipped outside; NaN becomes 0, and so does everything where lo == hi. One
    channel is repeated to three; two give (a, b, their mean).
    """
    return as_rgb(window_channels(pixels, window))


def window_channels(pixels: np.ndarray, window: Window) -> npt.NDArray[np.uint8]:
    """Like `apply_window`, but only the channels used: (h, w, k) uint8."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.dtype == np.uint8 and all(limits == (0.0, 255.0) for limits in window.limits):
        whole = window.channels == tuple(range(pixels.shape[2]))
        return pixels if whole else pixels[:, :, list(window.channels)]
    out = np.empty((*pixels.shape[:2], len(window.channels)), dtype=np.uint8)
    for i, (channel, limits) in enumerate(zip(window.channels, window.limits, strict=True)):
        out[:, :, i] = _scaled(pixels[:, :, channel], limits)
    return out


def as_rgb(channels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(h, w, k) with one to three channels -> (h, w, 3)."""
    count = channels.shape[2]
    if count == 1:
        return np.repeat(channels, 3, axis=2)
    if count == 2:
        mean = channels.astype(np.uint16).sum(axis=2, keepdims=True) // 2
        return np.concatenate([channels, mean.astype(np.uint8)], axis=2)
    return channels


def _channels(plane: Plane, contrast: Contrast) -> tuple[int, ...]:
    count = plane.n_channels
    if contrast.channels is None:
        return tuple(range(min(count, 3)))
    for channel in contrast.channels:
        if not 0 <= channel < count:
            raise ImageError(f"{plane.name} has no channel {channel}; its channels are 0 to {count - 1}.")
    return contrast.channels


def _sample(plane: Plane, channels: tuple[int, ...], within: Box) -> np.ndarray:
    """(n, k) samples of the channels inside the bounds; n * k is at most about two million."""
    parts = [plane.at_level(within, level).outward() for level in range(len(plane.levels))]
    level = max((i for i, part in enumerate(parts) if part.area >= _ENOUGH_PIXELS), default=0)
    (top, left), (height, width) = parts[level].corner, parts[level].shape
    if height * width * len(channels) <= _MAX_SAMPLES:
        return plane.read(top, left, height, width, level, channels).reshape(-1, len(channels))
    # A side shorter than its blocks is read in full; the other one then gets what is left of the budget.
    budget = math.sqrt(_MAX_SAMPLES / len(channels))
    shortest = min(height, width, int(budget))
    longest = int(_MAX_SAMPLES / len(channels) / shortest)
    tall, wide = (shortest, longest) if height <= width else (longest, shortest)
    blocks = [
        plane.read(top + row, left + col, rows, cols, level, channels).reshape(-1, len(channels))
        for row, rows in _spread(height, tall)
        for col, cols in _spread(width, wide)
    ]
    return np.concatenate(blocks)


def _spread(length: int, budget: int) -> list[tuple[int, int]]:
    """(start, size) of blocks with `budget` pixels in all, spread evenly from one end to the other."""
    if budget >= length:
        return [(0, length)]
    size = max(1, budget // _BLOCKS)
    return [(int(start), size) for start in np.linspace(0, length - size, _BLOCKS)]


def _limits(values: np.ndarray, contrast: Contrast) -> tuple[float, float]:
    percentiles = contrast.percentiles
    flat = values.astype(np.float32).ravel() if values.dtype == np.float16 else values.ravel()
    if flat.dtype.kind == "f":
        finite = np.isfinite(flat)
        flat = flat if finite.all() else flat[finite]
    if contrast.foreground and flat.size:
        flat = _foreground(flat)
    if flat.size == 0:
        return 0.0, 0.0
    least, most = flat.min().item(), flat.max().item()
    if flat.dtype.kind in "iu" and most - least < 2**16:
        lo, hi = _count_percentiles(flat, least, percentiles)
    else:
        lo, hi = _sort_percentiles(flat, percentiles)
    # A few bright pixels on an empty background: the percentiles meet, though the image is not constant.
    return (lo, hi) if lo < hi else (float(least), float(most))


def _foreground(flat: np.ndarray) -> np.ndarray:
    """The finite values that are not background; all of them where nothing else is left."""
    if flat.min() >= 0:
        inside = flat[flat > 0]
    else:
        values, counts = np.unique(flat, return_counts=True)
        inside = flat[flat != values[counts.argmax()]]
    return inside if inside.size else flat


def _count_percentiles(flat: np.ndarray, least: int, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of integers by counting, faster than by sorting; interpolated as numpy does."""
    offsets = (flat.astype(np.int64) if flat.itemsize < 8 else flat) - flat.dtype.type(least)
    below = np.cumsum(np.bincount(offsets.astype(np.int64)))

    def at(percent: float) -> float:
        rank = percent / 100 * (flat.size - 1)
        lower, upper = np.searchsorted(below, [math.floor(rank), math.ceil(rank)], side="right")
        return least + float(lower + (upper - lower) * (rank - math.floor(rank)))

    return at(percentiles[0]), at(percentiles[1])


def _sort_percentiles(flat: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles by partial sorting in the data's own precision, interpolated as numpy does."""
    ranks = [percent / 100 * (flat.size - 1) for percent in percentiles]
    around = [(math.floor(rank), math.ceil(rank)) for rank in ranks]
    ordered = np.partition(flat, sorted({place for pair in around for place in pair}))

    def at(rank: float, lower: int, upper: int) -> float:
        share = rank - lower
        return float(ordered[lower]) * (1 - share) + float(ordered[upper]) * share

    return at(ranks[0], *around[0]), at(ranks[1], *around[1])


def _scaled(values: np.ndarray, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    if limits[0] >= limits[1]:
        return np.zeros(values.shape, dtype=np.uint8)
    if values.dtype.kind in "iu" and values.itemsize <= 2:
        info = np.iinfo(values.dtype)
        table = _ramp(np.arange(info.min, info.max + 1, dtype=np.float64), limits)
        # Rolled, a table is indexed by the unsigned twin of its values: a negative one wraps to the end.
        twin = np.dtype(f"u{values.itemsize}")
        return np.take(np.roll(table, info.min), np.ascontiguousarray(values).view(twin))
    return _ramp(values, limits)


def _ramp(values: np.ndarray, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    lo, hi = limits
    small = values.itemsize <= 2 or (values.dtype == np.float32 and max(-lo, hi) < 1e30)
    work: npt.NDArray[Any] = values.astype(np.float32 if small else np.float64)
    if not math.isfinite(hi - lo):
        work, lo, hi = work / 4, lo / 4, hi / 4
    with np.errstate(over="ignore", invalid="ignore"):
        work -= lo
        work *= 255 / (hi - lo)
        np.clip(work, 0, 255, out=work)
        np.rint(work, out=work)
    np.nan_to_num(work, copy=False, nan=0.0)
    return work.astype(np.uint8)
