"""Every knob of a training run, on one line each with its effect. How the defaults were found: docs/finetune.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    keep_base: float = field(
        default=0.0, metadata={"alias": "hold"}
    )  # pull of the first decoder's answers to
    # boxes, each times its IoU with the truth; files call it "hold"
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
        for name, good in (
            ("visits", _whole(self.visits, 1)),
            ("epochs", self.epochs is None or _whole(self.epochs, 1)),
            ("most_epochs", _whole(self.most_epochs, 1)),
            ("least_epochs", _whole(self.least_epochs, 1) and self.least_epochs <= self.most_epochs),
            ("batch", _whole(self.batch, 1)),
            ("learning_rate", self.learning_rate is None or 0 < self.learning_rate < 1),
            ("warmup", 0 <= self.warmup < 1),
            ("weight_decay", self.weight_decay >= 0),
            ("clip", self.clip > 0),
            ("dice", self.dice >= 0),
            ("cross_entropy", self.cross_entropy >= 0),
            ("iou", self.iou >= 0 and self.dice + self.cross_entropy + self.iou > 0),
            ("correction", self.correction >= 0),
            ("keep_base", self.keep_base >= 0),
            ("jitter", len(self.jitter) == 2 and -0.4 < self.jitter[0] <= self.jitter[1] < 1),
            ("clicks", 0 <= self.clicks < 1),
            ("schedule", self.schedule in get_args(Schedule)),
            ("jitter_px", self.jitter_px is None or _rising(self.jitter_px, 0, 64)),
            ("views", _whole(self.views, 1) and self.views <= VIEWS),
            ("detail", _whole(self.detail, 1) and self.detail <= 32),
            ("shares", len(self.shares) > 0 and all(0 < share <= 1 for share in self.shares)),
            ("patience", _whole(self.patience, 1)),
            ("precision", self.precision in ("auto", "float32")),
            ("seed", _whole(self.seed, 0)),
        ):
            if not good:
                raise CaseError(f"The training setting {name} is {getattr(self, name)!r}. {_ADVICE[name]}")

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


def _whole(value: int, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _rising(pair: tuple[float, ...], least: float, most: float) -> bool:
    return len(pair) == 2 and least <= pair[0] <= pair[1] <= most


_ADVICE = {
    "visits": "Give a whole number from 1.",
    "epochs": "Give a whole number from 1, or leave it out.",
    "least_epochs": "Give a whole number from 1, at most `most_epochs`.",
    "most_epochs": "Give a whole number from 1.",
    "batch": "Give a whole number from 1.",
    "learning_rate": "Give a number between 0 and 1; 0.0002 is usual.",
    "warmup": "Give a share from 0 to below 1.",
    "weight_decay": "Give 0 or more.",
    "clip": "Give more than 0.",
    "dice": "Give 0 or more.",
    "cross_entropy": "Give 0 or more.",
    "iou": "Give 0 or more, and more than 0 for one of the three losses.",
    "correction": "Give 0 or more.",
    "keep_base": 'Give 0 or more; files call it "hold".',
    "jitter": "Give two shares of a box's side, the smaller first, above -0.4 and below 1.",
    "clicks": "Give a share from 0 to below 1.",
    "schedule": "Choose 'cosine' or 'constant'.",
    "jitter_px": "Give two numbers of pixels, the smaller first, from 0 to 64, or leave it out.",
    "views": f"Give a whole number from 1 to {VIEWS}.",
    "detail": "Give a whole number from 1 (off) to 32.",
    "shares": "Give at least one share above 0 and up to 1.",
    "patience": "Give a whole number from 1.",
    "precision": "Give auto or float32.",
    "seed": "Give a whole number from 0.",
}
