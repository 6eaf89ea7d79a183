"""Every knob of a training run, on one line each with its effect. How the defaults were found: docs/finetune.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from napari_medsam.errors import CaseError
from napari_medsam.records import from_plain, plain

Schedule = Literal["cosine", "constant"]

VIEWS = 8
"""The ways a square can be turned and mirrored; views of a field that training may see."""


@dataclass(frozen=True)
class FinetuneConfig:
    """What a training run does. Equal configs, cases and seeds give equal decoders on one machine and device.

    Raises CaseError when a value makes no sense.
    """

    visits: int = 600  # samples shown in all, from which the number of epochs follows; ignored with `epochs`
    epochs: int | None = None  # passes over the training samples; None takes `visits`
    least_epochs: int = 6  # of the epochs that follow from `visits`
    most_epochs: int = 40  # of the epochs that follow from `visits`
    batch: int = 4  # samples whose gradients are averaged into one step
    learning_rate: float | None = None  # of AdamW, at the peak; None: 2e-4, and 4e-4 for detail
    warmup: float = 0.05  # share of the steps over which the learning rate rises
    schedule: Schedule = (
        "cosine"  # how the rate goes on then: "cosine" falls to a hundredth, "constant" stays
    )
    weight_decay: float = 0.01  # of AdamW
    clip: float = 1.0  # largest norm of a step's gradient
    dice: float = 1.0  # weight of the Dice loss
    cross_entropy: float = 1.0  # weight of the pixelwise cross-entropy
    iou: float = 0.5  # weight of the squared error of the predicted IoU
    correction: float = 0.5  # weight of the cross-entropy of the region that a click corrects
    # pull of the first decoder's answers to boxes, each times its IoU with the truth; files call it "hold"
    keep_base: float = field(default=0.0, metadata={"alias": "hold"})
    jitter: tuple[float, float] = (-0.02, 0.1)  # each edge moves outwards by such a share of the box's side
    clicks: float = 0.4  # share of visits with clicks, where the decoder to begin with has learned them
    jitter_px: tuple[float, float] | None = (
        None  # in place of jitter: outwards by pixels of a field scaled to 256
    )
    views: int = 1  # 1, or up to 8: each field is also embedded turned and mirrored; costs encodes, once
    detail: int = 1  # above 1: train and predict large objects field by field (see segment.detail)
    shares: tuple[float, ...] = (0.5, 0.75, 1.0)  # of the way from first to learned weights, tried at the end
    patience: int = 8  # epochs without a better validation DSC until the run stops
    precision: str = "auto"  # bfloat16 products where the CPU is quicker with them, or "float32" anywhere
    seed: int = 0  # of the split, the order, the boxes

    def __post_init__(self) -> None:
        for name, good, advice in _rules(self):
            if not good:
                raise CaseError(f"The training setting {name} is {getattr(self, name)!r}. Give {advice}.")

    def epochs_for(self, samples: int) -> int:
        """Passes over so many training samples."""
        if self.epochs is not None:
            return self.epochs
        wanted = max(round(self.visits / max(samples, 1)), self.least_epochs)
        return min(wanted, self.most_epochs)

    @property
    def rate(self) -> float:
        """The learning rate at the peak of the schedule."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 4e-4 if self.detail > 1 else 2e-4

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of so many: a linear warm-up, then a cosine down to a hundredth
        of the peak, or the same rate to the end."""
        constant = self.schedule == "constant"
        warm = max(0 if constant else 1, round(self.warmup * steps))
        done = (step - warm) / max(1, steps - warm)
        fallen = 1.0 if constant else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        return self.rate * ((step + 1) / warm if step < warm else fallen)

    def to_json(self) -> dict[str, object]:
        """Plain values, as `from_json` takes them."""
        values: dict[str, object] = plain(self)
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> FinetuneConfig:
        """A config from plain values; unknown names are left out, missing ones get their default.

        Raises CaseError for values that make no sense.
        """
        try:
            return from_plain(cls, data, "settings")
        except ValueError as error:
            raise CaseError(f"The training settings cannot be read ({error}). Start a new run.") from error


def _rules(config: FinetuneConfig) -> Iterator[tuple[str, bool, str]]:
    """For each setting whether it makes sense, and what would."""
    for name in ("visits", "most_epochs", "batch", "patience"):
        yield name, _whole(getattr(config, name), 1), "a whole number from 1"
    for name in ("weight_decay", "dice", "cross_entropy", "correction", "keep_base"):
        yield name, getattr(config, name) >= 0, "0 or more"
    losses = config.dice + config.cross_entropy + config.iou
    jitter, pixels, shares = config.jitter, config.jitter_px, config.shares
    least, rate = config.least_epochs, config.learning_rate
    yield (
        "epochs",
        config.epochs is None or _whole(config.epochs, 1),
        "a whole number from 1, or leave it out",
    )
    yield (
        "least_epochs",
        _whole(least, 1) and least <= config.most_epochs,
        "a whole number up to `most_epochs`",
    )
    yield "learning_rate", rate is None or 0 < rate < 1, "a number between 0 and 1; 0.0002 is usual"
    yield "warmup", 0 <= config.warmup < 1, "a share from 0 to below 1"
    yield "clip", config.clip > 0, "more than 0"
    yield "iou", config.iou >= 0 and losses > 0, "0 or more, and more than 0 for one of the three losses"
    yield (
        "jitter",
        _rising(jitter, -0.4, 1) and jitter[0] > -0.4 and jitter[1] < 1,
        "two shares above -0.4, below 1",
    )
    yield "clicks", 0 <= config.clicks < 1, "a share from 0 to below 1"
    yield "schedule", config.schedule in get_args(Schedule), "'cosine' or 'constant'"
    yield (
        "jitter_px",
        pixels is None or _rising(pixels, 0, 64),
        "two numbers of pixels up to 64, the smaller first",
    )
    yield "views", _whole(config.views, 1) and config.views <= VIEWS, f"a whole number from 1 to {VIEWS}"
    yield "detail", _whole(config.detail, 1) and config.detail <= 32, "a whole number from 1 (off) to 32"
    yield (
        "shares",
        len(shares) > 0 and all(0 < share <= 1 for share in shares),
        "at least one, above 0 and up to 1",
    )
    yield "precision", config.precision in ("auto", "float32"), "auto or float32"
    yield "seed", _whole(config.seed, 0), "a whole number from 0"


def _whole(value: int, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _rising(pair: tuple[float, ...], least: float, most: float) -> bool:
    return len(pair) == 2 and least <= pair[0] <= pair[1] <= most
