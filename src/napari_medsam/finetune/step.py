"""One step of training, for a person's few cases, a corpus on many processes, and the recipe of clicks alike.

A visit shows the decoder one sample: a box or a click, then clicks where the mask is wrong (`simulated_user`). Each
answer has a loss of its own; how they are weighed, and how visits make a step, is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ModelError
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.losses import pull, round_loss
from napari_medsam.finetune.simulated_user import Plan, play
from napari_medsam.image.field import Frame

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from napari_medsam.model.frame_prompt import FramePrompt
    from napari_medsam.model.networks.decoder import SamDecoder

Gradient = tuple["Tensor | None", ...]


class VisitLoss:
    """The losses of visits to samples.

    decoder: only its `mask_decoder` learns. With `config.keep_base` it is held to what it answers now, so make this
    before the weights of an earlier stop are loaded into it. half: compute in bfloat16; the weights stay float32.
    """

    def __init__(self, decoder: SamDecoder, frame: Frame, config: FinetuneConfig, half: bool = False) -> None:
        self.decoder, self._frame, self._config, self._half = decoder, frame, config, half
        decoder.requires_grad_(False)
        decoder.mask_decoder.requires_grad_(True)
        self.learned = list(decoder.mask_decoder.parameters())
        self._base = deepcopy(decoder).eval().requires_grad_(False) if config.keep_base else None

    def answers(
        self, features: Tensor, target: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], plan: Plan
    ) -> Tensor:
        """The loss of each answer of one visit: (k,), with gradients.

        features: (C, h, w) float32, on the decoder's device. target: share of each logit that the object covers,
        (h, w), 255 for all. box: (4,) in frame pixels, used where the plan begins with one.
        """
        import torch

        wanted = torch.from_numpy((target / 255).astype(np.float32)).to(features.device)
        height, width = target.shape
        with self._precision():
            image = self.decoder.image_side(features)

        def decode(prompt: FramePrompt) -> tuple[Tensor, Tensor]:
            with self._precision():
                logits, iou = self.decoder.decode_prompt(image, *prompt.tensors(features.device.type))
            return logits.float(), iou.float()

        losses = []
        for answer in play(decode, target, box, plan, self._frame):
            logits = answer.logits[:height, :width]
            loss = round_loss(logits, answer.iou, wanted, self._config, answer.corrected)
            if self._base is not None and answer.by_box:
                before = self._base_answer(self._base, features, answer.prompt)[:height, :width]
                loss = loss + self._config.keep_base * pull(logits, before, wanted, self._config)
            losses.append(loss)
        return torch.stack(losses)

    def gradient(self, loss: Tensor) -> Gradient:
        """One gradient a learned parameter, None where it took no part. Visits may run side by side this way."""
        import torch

        return torch.autograd.grad(loss, self.learned, allow_unused=True)

    def _base_answer(self, base: SamDecoder, features: Tensor, prompt: FramePrompt) -> Tensor:
        import torch

        with torch.no_grad(), self._precision():
            logits, _ = base.decode_prompt(base.image_side(features), *prompt.tensors(features.device.type))
        return logits.float()

    def _precision(self) -> AbstractContextManager[None]:
        import torch

        # Left alone otherwise: whoever calls may have chosen a precision of its own.
        return torch.autocast("cpu", torch.bfloat16) if self._half else nullcontext()


def take_step(
    optimiser: Optimizer, learned: Sequence[Parameter], found: Sequence[Gradient], clip: float
) -> bool:
    """One step along the mean gradient of a batch; False, and no step, where that is not finite.

    found: for each visit one gradient a parameter; they are added in their order, whatever was computed first, and the
    first ones are changed in place. clip: largest norm of the mean.
    """
    import torch

    for parameter, own in zip(learned, zip(*found, strict=True), strict=True):
        total: Tensor | None = None
        for gradient in own:
            if gradient is not None:
                total = gradient if total is None else total.add_(gradient)
        parameter.grad = None if total is None else total / len(found)
    norm = torch.nn.utils.clip_grad_norm_(learned, clip)
    if not norm.isfinite():
        return False
    optimiser.step()
    return True


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def not_finite(loss: float, when: str, rate: float, option: str = "a learning rate") -> ModelError:
    """The error for a loss or gradient that is not finite. when: "epoch 3". rate: the one in use."""
    return ModelError(
        f"Training failed: the loss was {loss} in {when}, or its gradient was not finite. "
        f"Give {option} under {rate:.2g}, or other cases."
    )
