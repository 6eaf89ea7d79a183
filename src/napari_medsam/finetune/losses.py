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

    with torch.no_grad():
        found, true = logits > 0, target > 0.5
        union = (found | true).sum()
        overlap = (found & true).sum() / union if union else torch.ones((), device=logits.device)
    loss = _shape_loss(logits, target, config) + config.iou * (iou - overlap) ** 2
    if corrected is not None and corrected.any():
        region = torch.from_numpy(corrected).to(target.device)
        there = functional.binary_cross_entropy_with_logits(logits[region], target[region])
        loss = loss + config.correction * there
    return loss


def pull(logits: Tensor, told: Tensor, target: Tensor, config: FinetuneConfig) -> Tensor:
    """Dice and cross-entropy against what another decoder answers, times the IoU of that answer with the truth: ().

    logits, told: (h, w) over the content, ours and the other's; target as in `round_loss`. A decoder that is held so
    keeps what the other one knows, and is free where the other one is wrong. Source: distillation, arXiv 1503.02531.
    """
    import torch

    with torch.no_grad():
        answer = torch.sigmoid(told)
        mask, true = answer > 0.5, target > 0.5
        right = (mask & true).sum() / (mask | true).sum().clamp(min=1)
    pulled: Tensor = right * _shape_loss(logits, answer, config)
    return pulled


def _shape_loss(logits: Tensor, target: Tensor, config: FinetuneConfig) -> Tensor:
    import torch
    from torch.nn import functional

    share = torch.sigmoid(logits)
    both = (share * target).sum()
    dice = 1 - (2 * both + 1) / (share.sum() + target.sum() + 1)
    loss: Tensor = config.dice * dice + config.cross_entropy * (
        functional.binary_cross_entropy_with_logits(logits, target)
    )
    return loss
