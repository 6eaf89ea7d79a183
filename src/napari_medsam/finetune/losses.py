"""What a decoder is told about its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medsam.finetune.config import FinetuneConfig


def round_loss(
    logits: Tensor,
    iou: Tensor,
    target: Tensor,
    config: FinetuneConfig,
    earlier: npt.NDArray[np.bool_] | None = None,
    emphasis: float = 0.0,
) -> Tensor:
    """Dice and cross-entropy over the field's content, and the squared error of the predicted IoU: ().

    logits: (h, w) over the content, float32; target: (h, w) share of each logit that the object covers. earlier: the
    mask (h, w) that a click has just corrected; where it was wrong the cross-entropy weighs 1 + emphasis.
    """
    import torch
    from torch.nn import functional

    share = torch.sigmoid(logits)
    both = (share * target).sum()
    dice = 1 - (2 * both + 1) / (share.sum() + target.sum() + 1)
    weights = None
    if earlier is not None and emphasis:
        wrong = torch.from_numpy(earlier).to(target.device) != (target > 0.5)
        weights = 1 + emphasis * wrong
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weights)
    with torch.no_grad():
        found, true = logits > 0, target > 0.5
        union = (found | true).sum()
        overlap = (found & true).sum() / union if union else torch.ones((), device=logits.device)
    loss: Tensor = config.dice * dice + config.cross_entropy * entropy + config.iou * (iou - overlap) ** 2
    return loss
