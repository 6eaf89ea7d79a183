"""A specialist U-Net (MONAI's) trained on the training cases of one dataset, as the paper compares with.

    python training/baselines.py DATASET -o UNET.safetensors [--config unet.toml] [--epochs N] [--split TABLE.csv]

Planes are scaled to `side` pixels, longest side first, and padded with zeros; each class of the dataset is a class of
the network. It needs no box, and gets none. The same cases, settings and seed give the same weights on one machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import Split, sides_of
from napari_medsam.errors import CaseError, CheckpointError
from napari_medsam.files import replacing
from napari_medsam.finetune.samples import turned
from napari_medsam.model.decoder_file import CurvePoint
from napari_medsam.records import from_json, to_json
from napari_medsam_training.command import parser_of, status_of
from napari_medsam_training.toml_file import read_toml


@dataclass(frozen=True)
class UNetConfig:
    """What a training run does. Raises CaseError when a value makes no sense."""

    side: int = 256  # pixels a side of what the network sees, a multiple of 2 for each step down
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)  # of each level, from the finest
    batch: int = 4  # planes in one step
    learning_rate: float = 1e-3  # of Adam, at the start; it falls as a cosine
    visits: int = 1200  # planes shown in all, from which the epochs follow; ignored with `epochs`
    least_epochs: int = 10  # of those that follow from `visits`
    most_epochs: int = 60  # of those that follow from `visits`
    epochs: int | None = None  # passes over the training planes; None takes `visits`
    seed: int = 0  # of the first weights, the order, the views

    def __post_init__(self) -> None:
        numbers = (self.batch, self.visits, self.least_epochs, self.most_epochs, self.epochs or 1)
        step = 2 ** (len(self.channels) - 1)
        if len(self.channels) < 2 or self.side % step or self.side < step or min(self.channels) < 1:
            raise CaseError(f"A U-Net of the channels {self.channels} needs a side that {step} divides.")
        if not all(isinstance(n, int) and n >= 1 for n in numbers) or not 0 < self.learning_rate < 1:
            raise CaseError(f"The U-Net's settings make no sense: {self}. Give whole numbers from 1.")

    def epochs_for(self, planes: int) -> int:
        """Passes over so many training planes."""
        if self.epochs is not None:
            return self.epochs
        return min(max(round(self.visits / max(planes, 1)), self.least_epochs), self.most_epochs)


@dataclass(frozen=True, eq=False)
class Specialist:
    """A trained network: its classes are numbered from 1 in the order of `classes`."""

    network: torch.nn.Module
    classes: tuple[str, ...]
    config: UNetConfig
    curve: tuple[CurvePoint, ...]

    def segment(self, plane: np.ndarray) -> np.ndarray:
        """The class of each pixel of a plane (H, W, 3) or (H, W) uint8, 0 for background: (H, W) uint8."""
        small, height, width = fitted(plane, self.config.side)
        self.network.eval()
        with torch.inference_mode():
            logits = self.network(_input(small[None]))[:, :, :height, :width]
            full = torch.nn.functional.interpolate(
                logits, plane.shape[:2], mode="bilinear", align_corners=False
            )
        return full[0].argmax(0).to(torch.uint8).numpy()

    def segment_case(self, case: Case) -> np.ndarray:
        """The class of each pixel of a case, on the grid of `gts`; a volume plane by plane."""
        if case.gts.ndim == 2:
            return self.segment(case.imgs)
        return np.stack([self.segment(plane) for plane in case.imgs])


@dataclass(frozen=True)
class _About:
    """What a network's file says of it."""

    classes: tuple[str, ...]
    config: UNetConfig
    curve: tuple[CurvePoint, ...]


def read_config(path: Path | None) -> UNetConfig:
    """The settings of a TOML file; None gives the defaults. Raises CaseError when it cannot be read."""
    return UNetConfig() if path is None else read_toml(UNetConfig, path, "training/configs/unet.toml")


def train_unet(
    train: Sequence[Case],
    validation: Sequence[Case],
    config: UNetConfig,
    tell: Callable[[CurvePoint], None] = lambda _: None,
) -> Specialist:
    """Train on cases; the epoch with the best Dice over the validation cases is kept, without any the last one.

    tell: hears of each epoch: its number, training loss, validation DSC and seconds since the beginning. Raises
    CaseError when the training cases hold no objects.
    """
    classes = tuple(sorted({item.class_name for case in train for item in case.objects}))
    if not classes:
        raise CaseError("The training cases hold no objects: a U-Net has nothing to learn.")
    images, targets = _planes(train, classes, config.side)
    held = _planes(validation, classes, config.side)
    torch.manual_seed(config.seed)
    network = build(config, len(classes))
    epochs = config.epochs_for(len(images))
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    began, curve, best, best_state = time.monotonic(), [], -1.0, network.state_dict()
    for epoch in range(1, epochs + 1):
        loss = _epoch(network, optimiser, images, targets, config, epoch)
        schedule.step()
        score = _validate(network, *held, config.batch) if len(held[0]) else None
        curve.append(CurvePoint(epoch, loss, score, time.monotonic() - began))
        tell(curve[-1])
        if score is None or score > best:
            best = -1.0 if score is None else score
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best_state)
    return Specialist(network.eval(), classes, config, tuple(curve))


def build(config: UNetConfig, classes: int) -> torch.nn.Module:
    """MONAI's residual U-Net with an output for the background and each class, freshly initialised."""
    from monai.networks.nets import UNet

    steps = (2,) * (len(config.channels) - 1)
    net: torch.nn.Module = UNet(
        2, 3, classes + 1, channels=config.channels, strides=steps, num_res_units=2, norm="INSTANCE"
    )
    return net


def save(path: Path, specialist: Specialist) -> None:
    """Write a network, whole or not at all, as safetensors; its classes, settings and curve beside the weights."""
    from safetensors.torch import save as packed

    about = _About(specialist.classes, specialist.config, specialist.curve)
    with replacing(path) as stream:
        stream.write(packed(specialist.network.state_dict(), {"unet": to_json(about)}))


def load(path: Path) -> Specialist:
    """Read what `save` wrote. Raises CheckpointError when it is no such file."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            about = from_json(_About, file.metadata()["unet"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        network = build(about.config, len(about.classes))
        network.load_state_dict(state)
    except Exception as error:  # safetensors and torch raise half a dozen kinds
        raise CheckpointError(
            f"The U-Net {path} cannot be read ({error}). Train it again with training/baselines.py."
        ) from error
    return Specialist(network.eval(), about.classes, about.config, about.curve)


def class_map(case: Case, classes: Sequence[str]) -> np.ndarray:
    """The number of the class of each pixel, from 1, 0 for background and for classes not named: (...) uint8."""
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    table = np.zeros(int(case.gts.max(initial=0)) + 1, np.uint8)
    for item in case.objects:
        if item.label < len(table):
            table[item.label] = numbers.get(item.class_name, 0)
    numbered: np.ndarray = table[case.gts]
    return numbered


def fitted(plane: np.ndarray, side: int, nearest: bool = False) -> tuple[np.ndarray, int, int]:
    """A plane scaled so that its longer side is `side`, zero-padded to a square; and the content's height, width."""
    scale = side / max(plane.shape[:2])
    height, width = (max(1, round(length * scale)) for length in plane.shape[:2])
    how = (
        Image.Resampling.NEAREST
        if nearest
        else Image.Resampling.BOX
        if scale < 1
        else Image.Resampling.BILINEAR
    )
    small = np.asarray(Image.fromarray(plane).resize((width, height), how))
    square = np.zeros((side, side, *small.shape[2:]), np.uint8)
    square[:height, :width] = small
    if not nearest and square.ndim == 2:
        square = np.repeat(square[..., None], 3, axis=2)
    return square, height, width


def _planes(cases: Iterable[Case], classes: Sequence[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Every plane of the cases, empty ones too: (n, side, side, 3) and their classes (n, side, side), uint8."""
    images, targets = [], []
    for case in cases:
        target = class_map(case, classes)
        flat = case.gts.ndim == 2
        for image, true in zip([case.imgs] if flat else case.imgs, [target] if flat else target, strict=True):
            images.append(fitted(image, side)[0])
            targets.append(fitted(true, side, nearest=True)[0])
    return np.array(images, np.uint8), np.array(targets, np.uint8)


def _input(images: np.ndarray) -> torch.Tensor:
    """(n, side, side, 3) uint8 as the network's input: each plane with mean 0 and deviation 1, channels first."""
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
    mean, deviation = tensor.mean((1, 2, 3), keepdim=True), tensor.std((1, 2, 3), keepdim=True)
    return (tensor - mean) / (deviation + 1e-6)


def _epoch(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    images: np.ndarray,
    targets: np.ndarray,
    config: UNetConfig,
    epoch: int,
) -> float:
    """One pass over the planes in an order, and in views, that follow from seed and epoch. Returns the mean loss."""
    from monai.losses import DiceCELoss

    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    rng = np.random.default_rng([config.seed, epoch])
    order, views = rng.permutation(len(images)), rng.integers(0, 8, size=len(images))
    network.train()
    total = 0.0
    for first in range(0, len(order), config.batch):
        chosen = order[first : first + config.batch]
        seen = np.stack([turned(images[n], int(views[n])) for n in chosen])
        true = np.stack([turned(targets[n], int(views[n])) for n in chosen])
        loss = criterion(network(_input(seen)), torch.from_numpy(true[:, None].astype(np.int64)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    if not math.isfinite(total):
        raise CaseError(f"The U-Net's loss is not finite in epoch {epoch}. Give a smaller learning rate.")
    return total / len(images)


def _validate(network: torch.nn.Module, images: np.ndarray, targets: np.ndarray, batch: int) -> float:
    """Mean DSC over the planes and the classes that are in them."""
    from napari_medsam.evaluate.metrics import dice_coefficient

    network.eval()
    scores = []
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            found = network(_input(images[first : first + batch])).argmax(1).numpy()
            for mask, true in zip(found, targets[first : first + batch], strict=True):
                scores += [dice_coefficient(mask == n, true == n) for n in np.unique(true[true > 0])]
    return float(np.mean(scores)) if scores else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="UNET.safetensors")
    parser.add_argument("--config", type=Path, help="a TOML file like training/configs/unet.toml")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--split", type=Path, metavar="TABLE.csv", help="default: by group and seed")
    parser.add_argument("--seed", type=int, help="of the split and the training; default: the settings'")
    return status_of("baselines", partial(_run, parser.parse_args(arguments)), failed=1)


def _run(options: argparse.Namespace) -> None:
    given = {"epochs": options.epochs, "seed": options.seed}
    config = replace(read_config(options.config), **{k: v for k, v in given.items() if v is not None})
    dataset = CuratedDataset(options.dataset)
    train_on(dataset, sides_of(dataset, options.split, config.seed), config, options.output, _say)
    print(f"written: {options.output}")


def train_on(
    dataset: CuratedDataset,
    split: Split,
    config: UNetConfig,
    output: Path,
    tell: Callable[[CurvePoint], None] = lambda _: None,
) -> None:
    """Train on a dataset's training side, validate on the other, and write the network. Raises CaseError, OSError."""
    sides = [[dataset.read(stem, predictions=False) for stem in side] for side in (split.train, split.val)]
    save(output, train_unet(sides[0], sides[1], config, tell))


def _say(point: CurvePoint) -> None:
    found = "" if point.validation is None else f"  validation DSC {point.validation:.3f}"
    print(f"epoch {point.epoch}  loss {point.loss:.3f}{found}  {point.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
