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
    corrected: npt.NDArray[np.bool_] | None = None,
) -> Tensor:
    """Dice and cross-entropy over the field's content, and the squared error of the predicted IoU: ().

    logits: (h, w) over the content, float32; target: (h, w) share of each logit that the object covers. corrected: the
    region (h, w) that a click is to correct. Its cross-entropy counts on its own: in the mean over all pixels a small
    region hardly weighs, and a decoder learns to pass over the click.
    """
    import torch
    from torch.nn import functional

    share = torch.sigmoid(logits)
    both = (share * target).sum()
    dice = 1 - (2 * both + 1) / (share.sum() + target.sum() + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, target)
    with torch.no_grad():
        found, true = logits > 0, target > 0.5
        union = (found | true).sum()
        overlap = (found & true).sum() / union if union else torch.ones((), device=logits.device)
    loss: Tensor = config.dice * dice + config.cross_entropy * entropy + config.iou * (iou - overlap) ** 2
    if corrected is not None and corrected.any():
        region = torch.from_numpy(corrected).to(target.device)
        there = functional.binary_cross_entropy_with_logits(logits[region], target[region])
        loss = loss + config.correction * there
    return loss
