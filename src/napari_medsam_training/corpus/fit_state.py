"""A fit of many steps on disk: its checkpoint, whole or absent, and the losses up to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.finetune.checkpoint import read_tensors
from napari_medsam_training.corpus.stream import Place

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT, LOSSES = "fit.pt", "losses.csv"

Settings = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Kept:
    """A fit after some steps. losses: of each step so far, with its epoch. seconds: spent on them."""

    place: Place
    losses: Sequence[tuple[int, float]]
    decoder: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    seconds: float


def keep(run: Path, kept: Kept, settings: Settings) -> None:
    """Write the checkpoint and the table of losses, each whole or not at all. Raises OSError."""
    import torch

    content = {
        "settings": dict(settings),
        "place": asdict(kept.place),
        "epochs": torch.tensor([epoch for epoch, _ in kept.losses], dtype=torch.int32),
        "losses": torch.tensor([loss for _, loss in kept.losses], dtype=torch.float64),
        "decoder": dict(kept.decoder),
        "optimiser": dict(kept.optimiser),
        "seconds": kept.seconds,
    }
    with replacing(run / CHECKPOINT) as stream:
        torch.save(content, stream)
    write_losses(run, kept.losses)


def write_losses(run: Path, losses: Sequence[tuple[int, float]]) -> None:
    """step,epoch,loss for each step from 1. Raises OSError."""
    with replacing(run / LOSSES) as stream:
        stream.write(b"step,epoch,loss\n")
        for step, (epoch, loss) in enumerate(losses, 1):
            stream.write(f"{step},{epoch},{loss!r}\n".encode())


def kept_in(run: Path, settings: Settings) -> Kept | None:
    """The fit that a run's folder holds; None where it was ended before its first checkpoint.

    Raises CaseError: there is no such folder, the checkpoint is damaged, or it belongs to other settings.
    """
    if not run.is_dir():
        raise CaseError(
            f"There is no run {run}. Give the folder that the command named, or leave --resume out."
        )
    path = run / CHECKPOINT
    if not path.is_file():
        return None
    try:
        content = read_tensors(path)
        known = content["settings"]
        losses = list(zip(content["epochs"].tolist(), content["losses"].tolist(), strict=True))
        place, seconds = Place(**content["place"]), float(content["seconds"])
        kept = Kept(place, losses, content["decoder"], content["optimiser"], seconds)
    except Exception as error:  # torch's readers raise a dozen kinds for a damaged file
        raise CaseError(
            f"The checkpoint {path} is damaged ({error}). Remove {run} and start again."
        ) from error
    other = sorted(name for name in {*known, *settings} if known.get(name) != settings.get(name))
    if other:
        raise CaseError(
            f"{run} was begun with another {', '.join(other)}. Give what it was begun with, or start a new run "
            "without --resume."
        )
    return kept


def drop(run: Path) -> None:
    """The run has ended; its losses stay."""
    (run / CHECKPOINT).unlink(missing_ok=True)
