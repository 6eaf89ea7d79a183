"""The gradients of a batch, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


def set_mean_gradients(learned: Sequence[Parameter], found: Sequence[Sequence[Tensor | None]]) -> None:
    """Give each parameter the mean of its gradients over a batch, added in their order, whatever was computed first.

    found: for each sample one gradient a parameter, None where it has none; the first ones are changed in place.
    """
    for parameter, own in zip(learned, zip(*found, strict=True), strict=True):
        total: Tensor | None = None
        for gradient in own:
            if gradient is not None:
                total = gradient if total is None else total.add_(gradient)
        parameter.grad = None if total is None else total / len(found)
