"""What a prompt is answered with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_medsam.geometry import Box, Mask, Patch
from napari_medsam.image.field import Field
from napari_medsam.segment.prompt import Prompt


@dataclass(frozen=True)
class Step:
    """What one mask was decoded from, the decoder aside: equal steps give the same mask, so it need not be found twice.

    prompt: box and clicks shown, the newest last. fields, key: of the embedding; several fields, and no key, where
    their logits were blended. before: the mask before the newest click, told by its identity.
    """

    prompt: Prompt
    fields: tuple[Field, ...]
    key: str
    before: Prediction | Patch | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """One object's mask in the plane.

    box: the one that was drawn, None where there were clicks only. row, col: the plane pixel of the mask's first
    corner. mask: (h, w) bool, as tight as it goes; (0, 0) at the prompt's corner when nothing was found. iou: the
    IoU the model itself expects.
    key: the key of the embedding it was read from, or of several joined; empty once another decoder or contrast counts.
    field: the field of that embedding, or the smallest that holds several.
    step: what it was decoded from; None where that is not known, as after a restart. others: what was found for a lone
    click on the other fields that were looked at.
    """

    box: Box | None
    row: int
    col: int
    mask: Mask
    iou: float
    key: str
    field: Field
    step: Step | None = None
    others: tuple[Prediction, ...] = ()

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
