"""Which image something belongs to: told by its shape, its type and a sample of its pixels, wherever it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_medsam.errors import ImageError
from napari_medsam.image.plane import LazyArray

VERSION = 1  # raise it when the sample is taken in another way: nothing is recognised by it then
WHOLE_BYTES = 4 * 2**20
BLOCKS = 12
BLOCK = 64
# Steps that spread points evenly over a cube of any number of sides (powers of a generalised golden ratio).
_STEPS = (0.7548776662, 0.5698402910, 0.8191725134, 0.6710436067, 0.5497004779)


@dataclass(frozen=True)
class ImageIdentity:
    """What an image is known by.

    key: 32 hex digits over shape, type and sampled pixels; two images with the same key are taken for the same one.
    shape, dtype: of the finest level; the axis of RGB is left out. path: where it was read from, None if that is not
    known.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    path: str | None
    name: str

    def matches(self, other: ImageIdentity) -> bool:
        """Whether both are one image: the same pixels, and not two files that are there side by side.

        A file that was moved or renamed since is still the same image.
        """
        if self.key != other.key or self.shape != other.shape or self.dtype != other.dtype:
            return False
        if self.path is None or other.path is None or self.path == other.path:
            return True
        return not (_there(self.path) and _there(other.path))


def identify(
    levels: Sequence[LazyArray], *, name: str, path: str | Path | None = None, rgb: bool = False
) -> ImageIdentity:
    """Look at an image's pixels and say which image it is.

    levels: its arrays, finest first. rgb: whether the last axis is RGB(A). The coarsest level is read whole up to
    4 MB; of a larger one, `BLOCKS` blocks that are spread over it, so an image larger than memory costs no more.
    Raises ImageError when the pixels cannot be read.
    """
    finest, coarsest = levels[0], levels[-1]
    full, dtype = [int(n) for n in finest.shape], np.dtype(finest.dtype).newbyteorder("=").str
    shape = tuple(full[:-1] if rgb else full)
    header = {
        "version": VERSION,
        "shape": full,
        "rgb": rgb,
        "dtype": dtype,
        "sampled": [int(n) for n in coarsest.shape],
    }
    digest = hashlib.blake2b(json.dumps(header).encode(), digest_size=16)
    try:
        for where in _sampled(tuple(int(n) for n in coarsest.shape), np.dtype(coarsest.dtype).itemsize):
            block = np.ascontiguousarray(coarsest[where])
            digest.update(block.astype(block.dtype.newbyteorder("="), copy=False).data)
    except Exception as error:  # any array library, any storage: each has errors of its own
        raise ImageError(
            f"{name}: its pixels could not be read ({error}). Is the file still there?"
        ) from error
    known = None if path is None else str(path)
    return ImageIdentity(digest.hexdigest(), shape, dtype, known, name)


def _sampled(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, ...]]:
    """The parts of an array that are looked at."""
    if int(np.prod(shape, dtype=object)) * itemsize <= WHOLE_BYTES:
        yield tuple(slice(None) for _ in shape)
        return
    long = sorted(sorted(range(len(shape)), key=lambda axis: shape[axis])[-2:])
    sizes = [
        min(length, BLOCK) if axis in long else length if axis > long[-1] and length <= 4 else 1
        for axis, length in enumerate(shape)
    ]
    for number in range(BLOCKS):
        yield tuple(
            slice(start, start + size)
            for axis, (length, size) in enumerate(zip(shape, sizes, strict=True))
            for start in [int((0.5 + number * _STEPS[axis % len(_STEPS)]) % 1 * (length - size + 1))]
        )


def _there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
