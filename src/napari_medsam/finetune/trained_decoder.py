"""A decoder that learns: one step of the optimiser at a time, the same for every way of training.

Read from the top: `step` goes through a batch, `_gradient` through one visit, `_losses` through the answers of a visit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ModelError
from napari_medsam.finetune.losses import pull, round_loss
from napari_medsam.finetune.simulated_user import Plan, play
from napari_medsam.model.runtime.device import trains_in_bfloat16
from napari_medsam.model.runtime.threads import In, Out, map_single_threaded

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medsam.finetune.config import FinetuneConfig
    from napari_medsam.image.field import Frame
    from napari_medsam.model.frame_prompt import FramePrompt
    from napari_medsam.model.networks.decoder import ImageSide, SamDecoder

AT_ONCE = 16
"""Visits whose gradients are in memory together: those of a large batch take a gigabyte."""


@dataclass(frozen=True, eq=False)
class Visit:
    """One visit to an object on an embedded field.

    features: (C, h, w) float16. target: share of each logit that the object covers, (h, w) uint8 over the field's
    content. box: (4,) in frame pixels, as somebody drew it this time. plan: how the visit goes.
    """

    features: npt.NDArray[np.float16]
    target: npt.NDArray[np.uint8]
    box: npt.NDArray[np.float32]
    plan: Plan


@dataclass(frozen=True)
class Step:
    """What a step gave. losses: of the visits given, in their order; mean: over the visits of all processes."""

    losses: tuple[float, ...]
    mean: float


class TrainedDecoder:
    """A decoder, what it is kept near, and its optimiser.

    decoder: trained in place; only `mask_decoder` learns. With `config.keep_base` its answers to boxes are pulled
    towards those it gives now: make this before the weights of an interrupted run are loaded. knows_clicks: whether it
    has learned them, and is to keep them. half: whether to compute in bfloat16; None goes by the config. answers_loss:
    one loss out of those of a visit's answers (n,), their mean where not given. all_sum: adds a tensor up over all
    processes that train together; each of them gives `step` its own visits.
    """

    def __init__(
        self,
        decoder: SamDecoder,
        frame: Frame,
        config: FinetuneConfig,
        device: str = "cpu",
        *,
        knows_clicks: bool = False,
        half: bool | None = None,
        answers_loss: Callable[[Tensor], Tensor] | None = None,
        all_sum: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        import torch

        self.decoder = decoder.to(device).train()
        self.frame, self.config, self.device = frame, config, device
        decoder.prompt_encoder.requires_grad_(False)
        self.base = deepcopy(decoder).eval().requires_grad_(False) if config.keep_base else None
        self.learned = [p for p in decoder.mask_decoder.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.learned, lr=config.rate, weight_decay=config.weight_decay)
        self.clicks = config.clicks if knows_clicks and config.detail == 1 else 0.0
        in_bfloat16 = config.precision == "auto" and trains_in_bfloat16(device)
        self._half = in_bfloat16 if half is None else half
        self._answers_loss: Callable[[Tensor], Tensor] = answers_loss or torch.mean
        self._all_sum = all_sum

    @property
    def prompts(self) -> tuple[str, ...]:
        """What the decoder knows afterwards. Clicks that are not trained on are soon forgotten."""
        return ("box", "point") if self.clicks else ("box",)

    def state(self) -> dict[str, Tensor]:
        """Copies of the decoder's weights as they are now, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.decoder.state_dict().items()}

    def step(self, visits: Sequence[Visit], rate: float, where: str) -> Step:
        """One step of the optimiser down the mean gradient of the visits. Equal visits give equal weights, bit for bit.

        rate: the learning rate. where: of the step, for messages. Raises ModelError when a loss is not finite.
        """
        import torch

        losses: list[float] = []
        total: list[Tensor | None] = [None] * len(self.learned)
        for first in range(0, len(visits), AT_ONCE):
            for loss, gradients in self.side_by_side(self._gradient, visits[first : first + AT_ONCE]):
                losses.append(loss)
                total = [_added(*pair) for pair in zip(total, gradients, strict=True)]
        loss_sum, count = sum(losses), float(len(losses))
        if self._all_sum is not None:
            loss_sum, count, total = self._over_all_processes(loss_sum, count, total)
        for parameter, gradient in zip(self.learned, total, strict=True):
            parameter.grad = None if gradient is None else gradient / count
        norm = torch.nn.utils.clip_grad_norm_(self.learned, self.config.clip)
        if not math.isfinite(loss_sum) or not norm.isfinite():
            raise ModelError(
                f"Training failed: the loss was {loss_sum / count} in {where}. "
                f"Give a learning rate under {rate:.2g}, or other cases."
            )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        return Step(tuple(losses), loss_sum / count)

    def answer_box(
        self, features: npt.NDArray[np.float16], box: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """The logits (L, L) of a box (4,) in frame pixels on an embedding (C, h, w)."""
        import torch

        with torch.inference_mode():
            image = self.decoder.image_side(self._tensor(features))
            logits: npt.NDArray[np.float32] = (
                self.decoder.decode_box(image, self._tensor(box))[0].cpu().numpy()
            )
        return logits

    def side_by_side(self, work: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
        """work of each item, in order; on the CPU each on a thread of its own."""
        return map_single_threaded(work, items) if self.device == "cpu" else [work(item) for item in items]

    def _gradient(self, visit: Visit) -> tuple[float, tuple[Tensor | None, ...]]:
        import torch

        loss = self._answers_loss(torch.stack(list(self._losses(visit))))
        return float(loss.detach()), torch.autograd.grad(loss, self.learned, allow_unused=True)

    def _losses(self, visit: Visit) -> Iterator[Tensor]:
        """The loss of each answer of a visit, ()."""
        target = self._tensor(visit.target / 255)
        height, width = target.shape
        features = self._tensor(visit.features)
        with self._autocast():
            image = self.decoder.image_side(features)
        decode = partial(self._decode, self.decoder, image)
        for answer in play(decode, visit.target, visit.box, visit.plan, self.frame):
            logits = answer.logits[:height, :width]
            loss = round_loss(logits, answer.iou, target, self.config, answer.corrected)
            if self.base is not None and answer.by_box:
                known = self._base_logits(features, answer.prompt)[:height, :width]
                loss = loss + self.config.keep_base * pull(logits, known, target, self.config)
            yield loss

    def _base_logits(self, features: Tensor, prompt: FramePrompt) -> Tensor:
        import torch

        assert self.base is not None
        with torch.no_grad(), self._autocast():
            return self._decode(self.base, self.base.image_side(features), prompt)[0]

    def _decode(self, decoder: SamDecoder, image: ImageSide, prompt: FramePrompt) -> tuple[Tensor, Tensor]:
        with self._autocast():
            logits, iou = decoder.decode_prompt(image, *prompt.tensors(self.device))
        return logits.float(), iou.float()

    def _over_all_processes(
        self, loss_sum: float, count: float, total: Sequence[Tensor | None]
    ) -> tuple[float, float, list[Tensor | None]]:
        """Sums over the processes: of losses, visits and gradients. A weight that no visit used has no gradient."""
        import torch

        assert self._all_sum is not None
        pairs = list(zip(self.learned, total, strict=True))
        parts = [torch.zeros_like(p) if gradient is None else gradient for p, gradient in pairs]
        facts = [loss_sum, count, *(float(gradient is not None) for gradient in total)]
        sent = torch.cat([*(part.flatten() for part in parts), torch.tensor(facts, device=self.device)])
        summed = self._all_sum(sent)
        *gradients, known = torch.split(summed, [*(part.numel() for part in parts), len(facts)])
        loss_sum, count, *used = known.tolist()
        found = [
            gradient.view_as(part) if taken else None
            for gradient, part, taken in zip(gradients, parts, used, strict=True)
        ]
        return loss_sum, count, found

    def _autocast(self) -> AbstractContextManager[None]:
        import torch

        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self._half)

    def _tensor(self, array: npt.NDArray[np.floating]) -> Tensor:
        import torch

        return torch.from_numpy(array.astype(np.float32)).to(self.device)


def _added(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    """A sum in the order of the visits, whatever was computed first; the first gradient is changed in place."""
    if total is None or gradient is None:
        return gradient if total is None else total
    return total.add_(gradient)
