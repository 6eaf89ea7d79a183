"""The decoder as the processes of `fit.py` train it together."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.losses import pull, round_loss
from napari_medsam.model.networks.decoder import SamDecoder


class Taught(nn.Module):
    """Features (C, h, w), box (4,) in frame pixels and target (h, w) to the loss of one sample, ().

    decoder: only its `mask_decoder` learns. With `config.keep_base` it is held to what it answers now: make this before
    the weights of an earlier stop are loaded into it.
    """

    def __init__(self, decoder: SamDecoder, config: FinetuneConfig) -> None:
        super().__init__()
        self.decoder, self.config = decoder.requires_grad_(False), config
        self.held_to = deepcopy(decoder).eval() if config.keep_base else None
        decoder.mask_decoder.requires_grad_(True)

    def forward(self, features: Tensor, box: Tensor, target: Tensor) -> Tensor:
        height, width = target.shape
        logits, iou = self.decoder.decode_box(self.decoder.image_side(features), box)
        logits = logits[:height, :width].float()
        loss = round_loss(logits, iou.float(), target, self.config)
        if self.held_to is None:
            return loss
        with torch.no_grad():
            told, _ = self.held_to.decode_box(self.held_to.image_side(features), box)
        return loss + self.config.keep_base * pull(logits, told[:height, :width].float(), target, self.config)
