"""The fit: epochs of steps on samples whose embeddings are at hand, validated, stopped early, resumed.

Read from top to bottom: `run` goes through epochs, `_epoch` through the steps of one; what a step does is in
`trained_decoder`.
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
from napari_medsam.finetune.trained_decoder import TrainedDecoder, Visit
from napari_medsam.geometry import Box
from napari_medsam.image.field import Frame

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medsam.model.networks.decoder import SamDecoder

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
        self.trained = TrainedDecoder(decoder, frame, config, device, knows_clicks=clicks)
        self._train, self._validation, self._features = train, validation, features
        self._steps_an_epoch = math.ceil(len(train) / config.batch)
        self._first = self.trained.state()
        self._state = FitState(0, {}, {}, self._first, 0, -1.0, 0.0, [])
        self._taken: dict[str, Tensor] | None = None
        self.share = 1.0
        self._began = time.monotonic()

    @property
    def best_state(self) -> dict[str, Tensor]:
        """The weights of the best epoch, once the fit has ended the best share of the way to them; those it began with
        before the first epoch has ended."""
        return self._state.best if self._taken is None else self._taken

    @property
    def curve(self) -> list[dict[str, float | int | None]]:
        """For each epoch: its number, training loss, validation DSC and seconds since the beginning."""
        return self._state.curve

    def state(self) -> FitState:
        """What `resume` needs, as of the last complete epoch."""
        return self._state

    def resume(self, state: FitState) -> None:
        """Go on after `state.epoch`, as if the fit had never been interrupted."""
        self.trained.decoder.load_state_dict(state.decoder)
        self.trained.optimiser.load_state_dict(
            deepcopy(state.optimiser)
        )  # it would go on with the very tensors
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
            self.trained.decoder.load_state_dict(_between(self._first, best, share))
            scores[share] = self.validate(stopping)
        self.share = max(scores, key=lambda share: (scores[share] or 0.0, share))
        self._taken = _between(self._first, best, self.share)
        self.trained.decoder.load_state_dict(self._taken)

    def _epoch(self, epoch: int, stopping: Stopping) -> Iterator[Progress]:
        boxes = boxes_of_epoch(self._train, self.config, epoch)
        plans = plans_of_epoch(len(self._train), self.trained.clicks, self.config.seed, epoch)
        order = order_of_epoch(len(self._train), self.config, epoch)
        losses: list[float] = []
        self.trained.decoder.train()
        for step in range(self._steps_an_epoch):
            self._stop_if(stopping)
            chosen = order[step * self.config.batch : (step + 1) * self.config.batch].tolist()
            visits = [self._visit(self._train[n], boxes[n], plans[n]) for n in chosen]
            losses += self.trained.step(visits, self._rate(epoch, step), f"epoch {epoch}").losses
            if step % BATCHES_A_REPORT == BATCHES_A_REPORT - 1:
                yield self._progress(epoch, len(losses), float(np.mean(losses)), None, ended=False)
        score = self.validate(stopping)
        self._keep(epoch, float(np.mean(losses)), score)
        yield self._progress(epoch, len(losses), float(np.mean(losses)), score, ended=True)

    def _visit(self, sample: Sample, box: Box, plan: Plan) -> Visit:
        return Visit(self._features(sample), sample.target, self._in_frame(sample, box), plan)

    def _in_frame(self, sample: Sample, box: Box) -> npt.NDArray[np.float32]:
        in_frame: npt.NDArray[np.float32] = sample.field.to_frame(box.array()[None], self.trained.frame)[0]
        return in_frame

    def _predicted(self, sample: Sample) -> npt.NDArray[np.float32]:
        height, width = sample.target.shape
        logits = self.trained.answer_box(self._features(sample), self._in_frame(sample, sample.box))
        return logits[:height, :width]

    def _each(
        self, work: Callable[[Sample], Any], samples: Sequence[Sample], stopping: Stopping
    ) -> Iterator[tuple[Sample, Any]]:
        self.trained.decoder.eval()
        size = self.config.batch
        for first in range(0, len(samples), size):
            self._stop_if(stopping)
            part = samples[first : first + size]
            yield from zip(part, self.trained.side_by_side(work, part), strict=True)

    def _keep(self, epoch: int, loss: float, score: float | None) -> None:
        """Take the state at the end of an epoch; without validation the newest decoder is the best."""
        old = self._state
        better = score is None or score > old.best_score
        weights = self.trained.state()
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
            deepcopy(self.trained.optimiser.state_dict()),
            weights if better else old.best,
            epoch if better else old.best_epoch,
            (score if score is not None else -1.0) if better else old.best_score,
            seconds,
            [*old.curve, point],
        )

    def _stagnates(self) -> bool:
        state = self._state
        return bool(self._validation) and state.epoch - max(state.best_epoch, 1) >= self.config.patience

    def _rate(self, epoch: int, step: int) -> float:
        steps = self._steps_an_epoch
        return self.config.rate_at((epoch - 1) * steps + step, self.epochs * steps)

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
