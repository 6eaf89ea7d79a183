"""A fit half-way, on disk, so that a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from napari_medsam.files import replacing
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.fit import FitState

CHECKPOINT_NAME = "fit.pt"


def run_identity(
    config: FinetuneConfig, roles: Mapping[str, Sequence[str]], weights: tuple[str, str], device: str
) -> str:
    """What must be equal for a checkpoint to be gone on with, as a hash.

    roles: stems by side. weights: hashes of the encoder, and of the decoder that training starts with.
    """
    parts = json.dumps([config.to_json(), {**roles}, weights, device], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def save_checkpoint(folder: Path, state: FitState, identity: str) -> None:
    """Keep a state, whole or not at all. Raises OSError."""
    import torch

    content = {field.name: getattr(state, field.name) for field in fields(FitState)}
    with replacing(folder / CHECKPOINT_NAME) as stream:
        torch.save({**content, "identity": identity}, stream)


def read_tensors(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote, nothing executed. Raises ValueError for damage, and what torch raises."""
    import torch

    with ZipFile(path) as parts:  # torch does not look at the checksums that it wrote
        if (bad := parts.testzip()) is not None:
            raise ValueError(f"{bad} is damaged")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def load_checkpoint(folder: Path, identity: str) -> FitState | None:
    """The state kept in a run's folder; None when there is none, it is damaged, or of another run."""
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return None
    try:
        content = read_tensors(path)
        if content.pop("identity") != identity:
            return None
        return FitState(**content)
    except Exception:  # torch's readers raise a dozen kinds for a damaged file; the run then begins anew
        return None


def drop_checkpoint(folder: Path) -> None:
    """The run has ended."""
    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
