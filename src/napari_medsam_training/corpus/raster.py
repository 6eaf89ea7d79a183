"""What every format is read into: pixels with planes first, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medsam_training.corpus.left_out import LeftOut

LARGEST_BYTES = 4 * 2**30  # what a case may hold (`curation/npz`)
_SHIFT = 0.1  # share of a voxel by which corners of image and mask may lie apart


@dataclass(frozen=True, eq=False)
class Raster:
    """An image or a mask as read.

    data: (H, W), (H, W, C) where `channels`, or (D, H, W). spacing: along (row, col) or (z, row, col), in `unit`.
    affine: (4, 4) from indices (z, row, col) to millimetres right, anterior, superior; None where the file tells
    none. lossy: its values may be off by a few (JPEG). geometry: the DICOM volume's own, to fit a segmentation into.
    facts: what the case's record keeps of the source.
    """

    data: npt.NDArray[Any]
    spacing: tuple[float, ...]
    unit: str = "pixel"
    channels: bool = False
    rgb: bool = False
    affine: npt.NDArray[np.float64] | None = None
    lossy: bool = False
    geometry: Any = None
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""
        return self.data.shape[:-1] if self.channels else self.data.shape


def check_same_grid(image: Raster, mask: Raster) -> None:
    """Raise LeftOut unless a mask lies on its image's grid: same shape and, where both tell it, the same place."""
    if image.shape != mask.shape:
        turned = " It looks turned by a quarter." if image.shape[::-1] == mask.shape else ""
        raise LeftOut("shape-mismatch", f"The image is {_x(image.shape)}, its mask {_x(mask.shape)}.{turned}")
    if image.affine is None or mask.affine is None:
        return
    corners = np.array(
        [
            [i * (n - 1) for i, n in zip(bits, _three(image.shape), strict=True)] + [1]
            for bits in np.ndindex(2, 2, 2)
        ]
    )
    gaps = np.linalg.norm((corners @ (image.affine - mask.affine).T)[:, :3], axis=1)
    size = min(np.linalg.norm(image.affine[:3, :3], axis=0))
    if gaps.max() > _SHIFT * size:
        raise LeftOut(
            "wrong-geometry",
            f"By their headers image and mask lie up to {gaps.max():.3g} mm apart (a voxel is {size:.3g} mm).",
        )


def planes_first(image: Raster, mask: Raster, axis: int | None) -> tuple[Raster, Raster, int]:
    """A volume and its mask with the out-of-plane axis first, and which it was (0, 1, 2 of z, row, col).

    axis: None takes the coarsest spacing; where spacings are equal to 1 %, the first of these.
    """
    if axis is None:
        coarsest = max(image.spacing)
        axis = next(i for i, step in enumerate(image.spacing) if step >= 0.99 * coarsest)
    order = [axis, *(i for i in range(3) if i != axis)]
    return _transposed(image, order), _transposed(mask, order), axis


def _transposed(raster: Raster, order: list[int]) -> Raster:
    spacing = tuple(raster.spacing[i] for i in order)
    return Raster(raster.data.transpose(order), spacing, raster.unit, lossy=raster.lossy, facts=raster.facts)


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (3 - len(shape)) + shape


def _x(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
