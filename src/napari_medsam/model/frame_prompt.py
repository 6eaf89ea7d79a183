"""A prompt as a model takes it: in the pixels of its frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    Said: TypeAlias = tuple[Tensor | None, Tensor, Tensor, Tensor | None]

Floats = npt.NDArray[np.float32]


def _no_points() -> Floats:
    return np.zeros((0, 2), np.float32)


def _no_signs() -> npt.NDArray[np.bool_]:
    return np.zeros(0, bool)


@dataclass(frozen=True, eq=False)
class FramePrompt:
    """What was said about one object, in frame pixels, rows before columns.

    box: (4,) r0, c0, r1, c1, or None. points: (k, 2), whole numbers at pixel centres; positive: (k,), True where the
    object is. mask: (L, L) logits of an earlier mask over the whole frame, L as `Decoded.logits` has it, or None.
    within: half-open (r0, c0, r1, c1) where logits are wanted, elsewhere they are `decoder.FAR`; None for everywhere.
    Raises ModelError for other shapes, or when it says nothing.
    """

    box: Floats | None = None
    points: Floats = field(default_factory=_no_points)
    positive: npt.NDArray[np.bool_] = field(default_factory=_no_signs)
    mask: Floats | None = None
    within: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        fits = (
            self.points.ndim == 2
            and self.points.shape[1] == 2
            and self.positive.shape == self.points.shape[:1]
        )
        fits = fits and (self.box is None or self.box.shape == (4,))
        if not fits or (self.mask is not None and self.mask.ndim != 2):
            raise ModelError(
                "A prompt has a box (4,), points (k, 2) with k signs and a mask (L, L), not "
                f"{None if self.box is None else self.box.shape}, {self.points.shape}, {self.positive.shape}, "
                f"{None if self.mask is None else self.mask.shape}."
            )
        if self.box is None and not len(self.points):
            raise ModelError("A prompt needs a box or a click.")

    def tensors(self, device: str) -> Said:
        """Box, points, signs and mask as `SamDecoder.decode_prompt` takes them, on a device of torch."""
        import torch

        def on_device(array: Floats | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(device)

        signs = torch.from_numpy(self.positive.astype(np.float32)).to(device)
        return on_device(self.box), torch.from_numpy(self.points).to(device), signs, on_device(self.mask)
