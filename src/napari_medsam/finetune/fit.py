"""The fit: frozen encoder and prompt encoder, the mask decoder trained on cached embeddings.

Read from top to bottom: `fit` goes through epochs, `_step` through one batch; `step` has what a visit costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import Cancelled
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.samples import Sample, boxes_of_epoch, order_of_epoch
from napari_medsam.finetune.simulated_user import Plan, plans_of_epoch
from napari_medsam.finetune.step import Gradient, VisitLoss, not_finite, set_rate, take_step
from napari_medsam.geometry import Box
from napari_medsam.image.field import Frame
from napari_medsam.model.runtime.device import trains_in_bfloat16
from napari_medsam.model.runtime.threads import In, Out, map_single_threaded

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medsam.model.networks.decoder import SamDecoder

Visit = tuple[Sample, Box, Plan]
Features = Callable[[Sample], npt.NDArray[np.float16]]
Stopping = Callable[[], bool]

BATCHES_A_REPORT = 4


@dataclass(frozen=True)
class Progress:
    """Where a fit is. epoch counts from 1; loss is the mean so far in this epoch; validation is the DSC on the
    validation samples after this epoch, None where it has not ended or there are none. best: the epoch whose
    decoder is kept. seconds: since the fit began. ended: whether the epoch is complete."""

    epoch: int
    epochs: int
    samples: int
    of: int
    loss: float
    validation: float | None
    best: int
    seconds: float
    ended: bool


@dataclass
class FitState:
    """All that a fit needs to go on: after `epoch` epochs, with the decoder, the optimiser and the best so far."""

    epoch: int
    decoder: dict[str, Tensor]
    optimiser: dict[str, Any]
    best: dict[str, Tensor]
    best_epoch: int
    best_score: float
    seconds: float
    curve: list[dict[str, float | int | None]]


class Fit:
    """One fit of a decoder. `run` yields progress; `best_state` is what it has found, at any time.

    decoder: trained in place; only `mask_decoder` learns. train, validation: samples; with no validation samples the
    last epoch's decoder is the best. features: gives a sample's embedding, (C, h, w) float16. device: of torch. clicks:
    whether the decoder has learned clicks, and is to keep them.
    """

    def __init__(
        self,
        decoder: SamDecoder,
        train: Sequence[Sample],
        validation: Sequence[Sample],
        features: Features,
        frame: Frame,
        config: FinetuneConfig,
        device: str = "cpu",
        *,
        clicks: bool = False,
    ) -> None:
        import torch

        torch.manual_seed(config.seed)
        self.config = config
        self.epochs = config.epochs_for(len(train))
        self._decoder = decoder.to(device).train()
        self._train, self._validation = train, validation
        self._features, self._frame, self._device = features, frame, device
        self._clicks = config.clicks if clicks and config.detail == 1 else 0.0
        half = config.precision == "auto" and trains_in_bfloat16(device)
        self._visits = VisitLoss(decoder, frame, config, half)
        self._optimiser = torch.optim.AdamW(
            self._visits.learned, lr=config.rate, weight_decay=config.weight_decay
        )
        self._steps_an_epoch = math.ceil(len(train) / config.batch)
        self._first = self.decoder_state()
        self._state = FitState(0, {}, {}, self._first, 0, -1.0, 0.0, [])
        self._taken: dict[str, Tensor] | None = None
        self.share = 1.0
        self._began = time.monotonic()

    def decoder_state(self) -> dict[str, Tensor]:
        """Copies of the decoder's weights as they are now, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self._decoder.state_dict().items()}

    @property
    def best_state(self) -> dict[str, Tensor]:
        """The weights of the best epoch, once the fit has ended the best share of the way to them; those it began with
        before the first epoch has ended."""
        return self._state.best if self._taken is None else self._taken

    @property
    def curve(self) -> list[dict[str, float | int | None]]:
        """For each epoch: its number, training loss, validation DSC and seconds since the beginning."""
        return self._state.curve

    @property
    def prompts(self) -> tuple[str, ...]:
        """What the decoder knows afterwards. Clicks that are not trained on are soon forgotten."""
        return ("box", "point") if self._clicks else ("box",)

    def state(self) -> FitState:
        """What `resume` needs, as of the last complete epoch."""
        return self._state

    def resume(self, state: FitState) -> None:
        """Go on after `state.epoch`, as if the fit had never been interrupted."""
        self._decoder.load_state_dict(state.decoder)
        self._optimiser.load_state_dict(deepcopy(state.optimiser))  # it would go on with the very tensors
        self._state = state

    def past(self) -> list[Progress]:
        """The ends of the epochs that a resumed fit has behind it, as `run` told them."""
        state, samples = self._state, len(self._train)
        return [
            Progress(
                epoch=int(point["epoch"] or 0),
                epochs=self.epochs,
                samples=samples,
                of=samples,
                loss=float(point["loss"] or 0.0),
                validation=point["validation"],
                best=state.best_epoch,
                seconds=float(point["seconds"] or 0.0),
                ended=True,
            )
            for point in state.curve
        ]

    def run(self, stopping: Stopping = lambda: False) -> Iterator[Progress]:
        """Fit until the epochs are done or the validation DSC no longer rises. Raises Cancelled once stopping(),
        ModelError when the loss is no longer finite."""
        self._began = time.monotonic() - self._state.seconds
        while self._state.epoch < self.epochs and not self._stagnates():
            yield from self._epoch(self._state.epoch + 1, stopping)
        self._take_share(stopping)

    def validate(self, stopping: Stopping = lambda: False) -> float | None:
        """DSC over the validation samples, the fields of one object taken together; None when there are none."""
        import torch

        overlap: dict[tuple[str, int, int], npt.NDArray[np.float64]] = {}
        with torch.inference_mode():
            for sample, logits in self._each(self._predicted, self._validation, stopping):
                target = sample.target > 127
                found = logits > 0
                counts = np.array([np.count_nonzero(found & target), found.sum() + target.sum()], np.float64)
                key = (sample.case, sample.plane, sample.label)
                overlap[key] = overlap.get(key, np.zeros(2)) + counts
        if not overlap:
            return None
        return float(np.mean([2 * both / max(total, 1) for both, total in overlap.values()]))

    def _take_share(self, stopping: Stopping) -> None:
        """Go only part of the way from the first weights to the best ones where validation likes that better.

        A few cases teach habits of their own as well; weights in between keep what both know. Without validation
        samples the smallest share is taken; with detail, which the first decoder has never seen, the largest. Source:
        Wortsman et al., arXiv 2109.01903.
        """
        best = self._state.best
        scores = {}
        shares = sorted(self.config.shares, reverse=True)
        if not self._validation:
            shares = shares[:1] if self.config.detail > 1 else shares[-1:]
        for share in shares:
            self._decoder.load_state_dict(_between(self._first, best, share))
            scores[share] = self.validate(stopping)
        self.share = max(scores, key=lambda share: (scores[share] or 0.0, share))
        self._taken = _between(self._first, best, self.share)
        self._decoder.load_state_dict(self._taken)

    def _epoch(self, epoch: int, stopping: Stopping) -> Iterator[Progress]:
        boxes = boxes_of_epoch(self._train, self.config, epoch)
        plans = plans_of_epoch(len(self._train), self._clicks, self.config.seed, epoch)
        order = order_of_epoch(len(self._train), self.config, epoch)
        losses: list[float] = []
        self._decoder.train()
        for step in range(self._steps_an_epoch):
            self._stop_if(stopping)
            chosen = order[step * self.config.batch : (step + 1) * self.config.batch].tolist()
            self._set_rate((epoch - 1) * self._steps_an_epoch + step)
            losses += self._step([(self._train[n], boxes[n], plans[n]) for n in chosen])
            if step % BATCHES_A_REPORT == BATCHES_A_REPORT - 1:
                yield self._progress(epoch, len(losses), float(np.mean(losses)), None, ended=False)
        score = self.validate(stopping)
        self._keep(epoch, float(np.mean(losses)), score)
        yield self._progress(epoch, len(losses), float(np.mean(losses)), score, ended=True)

    def _step(self, batch: list[Visit]) -> list[float]:
        """One step of the optimiser."""
        losses, gradients = zip(*self._side_by_side(self._gradient, batch), strict=True)
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean) or not take_step(
            self._optimiser, self._visits.learned, gradients, self.config.clip
        ):
            rate = self._optimiser.param_groups[0]["lr"]
            raise not_finite(mean, f"epoch {self._state.epoch + 1}", rate)
        return list(losses)

    def _gradient(self, visit: Visit) -> tuple[float, Gradient]:
        """The mean over the answers of one visit."""
        sample, box, plan = visit
        answers = self._visits.answers(
            self._embedding(sample), sample.target, self._in_frame(sample, box), plan
        )
        loss = answers.mean()
        return float(loss.detach()), self._visits.gradient(loss)

    def _embedding(self, sample: Sample) -> Tensor:
        return self._tensor(self._features(sample).astype(np.float32))

    def _in_frame(self, sample: Sample, box: Box) -> npt.NDArray[np.float32]:
        in_frame: npt.NDArray[np.float32] = sample.field.to_frame(box.array()[None], self._frame)[0]
        return in_frame

    def _tensor(self, array: npt.NDArray[np.float32]) -> Tensor:
        import torch

        return torch.from_numpy(array).to(self._device)

    def _predicted(self, sample: Sample) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            box = self._tensor(self._in_frame(sample, sample.box))
            logits, _ = self._decoder.decode_box(self._decoder.image_side(self._embedding(sample)), box)
            height, width = sample.target.shape
            return logits[:height, :width].cpu().numpy()

    def _each(
        self, work: Callable[[Sample], Any], samples: Sequence[Sample], stopping: Stopping
    ) -> Iterator[tuple[Sample, Any]]:
        self._decoder.eval()
        size = self.config.batch
        for first in range(0, len(samples), size):
            self._stop_if(stopping)
            part = samples[first : first + size]
            yield from zip(part, self._side_by_side(work, part), strict=True)

    def _side_by_side(self, work: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
        """work of each item, in order; on the CPU each on a thread of its own."""
        return map_single_threaded(work, items) if self._device == "cpu" else [work(item) for item in items]

    def _keep(self, epoch: int, loss: float, score: float | None) -> None:
        """Take the state at the end of an epoch; without validation the newest decoder is the best."""
        old = self._state
        better = score is None or score > old.best_score
        weights = self.decoder_state()
        seconds = time.monotonic() - self._began
        point: dict[str, float | int | None] = {
            "epoch": epoch,
            "loss": loss,
            "validation": score,
            "seconds": seconds,
        }
        self._state = FitState(
            epoch,
            weights,
            deepcopy(self._optimiser.state_dict()),
            weights if better else old.best,
            epoch if better else old.best_epoch,
            (score if score is not None else -1.0) if better else old.best_score,
            seconds,
            [*old.curve, point],
        )

    def _stagnates(self) -> bool:
        state = self._state
        return bool(self._validation) and state.epoch - max(state.best_epoch, 1) >= self.config.patience

    def _set_rate(self, step: int) -> None:
        set_rate(self._optimiser, self.config.rate_at(step, self.epochs * self._steps_an_epoch))

    def _progress(
        self, epoch: int, samples: int, loss: float, validation: float | None, *, ended: bool
    ) -> Progress:
        seconds = time.monotonic() - self._began
        best = self._state.best_epoch
        return Progress(epoch, self.epochs, samples, len(self._train), loss, validation, best, seconds, ended)

    def _stop_if(self, stopping: Stopping) -> None:
        if stopping():
            raise Cancelled("Training was stopped.")


def _between(first: Mapping[str, Tensor], last: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    if share == 1:
        return dict(last)
    return {name: value + share * (last[name] - value) for name, value in first.items()}
