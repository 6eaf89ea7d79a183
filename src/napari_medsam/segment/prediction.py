"""What a prompt is answered with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import Field


@dataclass(frozen=True, eq=False)
class Prediction:
    """One object's mask in the plane.

    box: the one that was drawn, None where there were clicks only. row, col: the plane pixel of the mask's first
    corner. mask: (h, w) bool, as tight as it goes; (0, 0) at the prompt's corner when nothing was found. iou: the
    IoU the model itself expects.
    key: the key of the embedding it was read from, or of several joined. field: the field of that embedding, or
    the smallest that holds several.
    """

    box: Box | None
    row: int
    col: int
    mask: npt.NDArray[np.bool_]
    iou: float
    key: str
    field: Field

    def full(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The mask on a whole plane: (H, W) bool."""
        plane = np.zeros(shape, dtype=bool)
        height, width = self.mask.shape
        plane[self.row : self.row + height, self.col : self.col + width] = self.mask
        return plane

    @property
    def patch(self) -> Patch:
        """The mask where it lies."""
        return Patch(self.row, self.col, self.mask)

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(np.count_nonzero(self.mask))
