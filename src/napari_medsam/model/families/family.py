"""What a model family is: how it takes an image, how its checkpoints are known, and what its encoder is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ImageError
from napari_medsam.image.field import Frame, Resample
from napari_medsam.model.catalogue import Arch, ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Pixels = npt.NDArray[np.uint8]
Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """One model family.

    squash, resample: how its training fitted an image into its input (see `Frame`). table: what each grey level of
    some pixels becomes, (256, 3). detect: a spec with family and arch settled when these weights are of the family,
    else None. network: the encoder of an arch, without weights.
    """

    squash: bool
    resample: Resample
    table: Callable[[Pixels], Table]
    detect: Callable[[ModelSpec, Mapping[str, Tensor]], ModelSpec | None]
    network: Callable[[Arch], nn.Module]

    def frame(self, size: int) -> Frame:
        """How an image is fitted into the family's input of `size` pixels."""
        return Frame(size, self.squash, self.resample)

    def prepare(self, size: int, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(h', w', 3) uint8, already fitted to the frame, to the float32 (3, size, size) the encoder eats.

        Normalised first, then zeros at the bottom and right. C-contiguous.
        Raises ImageError when the pixels do not fit.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or max(pixels.shape) > size:
            raise ImageError(
                f"The model takes (h, w, 3) uint8 pixels of at most {size} x {size}, not {pixels.shape} "
                f"{pixels.dtype}. Read them with read_field and the model's frame."
            )
        table = np.ascontiguousarray(self.table(pixels).T, dtype=np.float32)
        out = np.zeros((3, size, size), dtype=np.float32)
        for channel in range(3):
            out[channel, : pixels.shape[0], : pixels.shape[1]] = table[channel][pixels[..., channel]]
        return out


def unit_range(pixels: Pixels) -> Table:
    """Minimum and maximum of the image to [0, 1]; a constant image gives zeros."""
    low, high = float(pixels.min()), float(pixels.max())
    return np.repeat((np.arange(256.0)[:, None] - low) / max(high - low, 1e-8), 3, axis=1)
