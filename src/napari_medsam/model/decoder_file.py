"""A fine-tuned decoder on disk: the mask decoder's weights as safetensors, and in the header what they are worth.

A decoder belongs to one encoder. Its file says which by the hash of the encoder's weights, and is refused with any
other. Reading the header imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medsam.errors import CheckpointError
from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.files import replacing
from napari_medsam.records import from_json, plain

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
HEADER = "napari_medsam_decoder"
VERSION = 1
MOST_DETAIL = 32
_LEARNED = "mask_decoder."


@dataclass(frozen=True)
class CurvePoint:
    """One whole epoch of a training run: its number from 1, its mean loss, the validation DSC where cases validate,
    and seconds since the beginning."""

    epoch: int
    loss: float
    validation: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class DecoderInfo:
    """What a decoder's file says of it.

    name: how it is called. base: the model whose encoder and prompt encoder it needs, a registry name or checkpoint
    path. encoder_hash: of that encoder's weights. decoder_hash: of all decoder weights, prompt encoder included.
    detail: the detail it was trained for, 1 for none. cases: stems it learned from, validated on and was judged by,
    under "train", "val" and "test". config: settings of the training run, JSON values. prompts: what
    it has learned, "box" and perhaps "point".
    """

    name: str
    base: str
    encoder_hash: str
    decoder_hash: str
    created: str = ""
    detail: int = 1
    dataset: str = ""
    dataset_id: str = ""
    cases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    verdict: Verdict | None = None
    notes: str = ""
    prompts: tuple[str, ...] = ("box",)


def write_decoder(path: Path, state: Mapping[str, Tensor], info: DecoderInfo) -> None:
    """Write the mask decoder's part of `state` and `info`, whole or not at all. Raises CheckpointError."""
    from safetensors.torch import save

    learned = {
        name: value.detach().cpu().contiguous() for name, value in state.items() if name.startswith(_LEARNED)
    }
    content = save(learned, metadata=_metadata(info))
    _write(path, content)


def read_info(path: Path) -> DecoderInfo:
    """What the file at `path` says of itself; the weights are not read. Raises CheckpointError naming the file."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(HEADER)
    except Exception as error:  # safetensors has an error class of its own, and the system adds others
        raise CheckpointError(
            f"Cannot read the decoder {path} ({error}). It is missing or damaged: train it again, or import another."
        ) from error
    if header is None:
        raise CheckpointError(
            f"{path} is not a decoder file of napari-medsam. Choose one that a training run wrote."
        )
    return _parsed(path, header)


def is_decoder(path: Path) -> bool:
    """Whether a file is a decoder of ours, and not a whole checkpoint or something else."""
    if path.suffix.lower() != SUFFIX or not path.is_file():
        return False
    try:
        read_info(path)
    except CheckpointError:
        return False
    return True


def read_decoder(path: Path, encoder_hash: str, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All decoder weights: the file's mask decoder on the prompt encoder of `base`.

    Raises CheckpointError: the file was trained on another encoder, is damaged, or its weights are not finite.
    """
    from safetensors.torch import load_file

    info = read_info(path)
    if info.encoder_hash != encoder_hash:
        raise CheckpointError(
            f"The decoder {info.name} ({path}) was trained on the encoder {info.encoder_hash[:12]} of {info.base}, "
            f"and this encoder is {encoder_hash[:12]}. Choose the model {info.base}, or another decoder."
        )
    try:
        learned = {name: value.float() for name, value in load_file(path).items()}  # maybe stored as float16
    except Exception as error:
        raise CheckpointError(
            f"Cannot read the decoder {path} ({error}). It is damaged: train it again."
        ) from error
    bad = [name for name, value in learned.items() if not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"The decoder {path} holds values that are not finite ({bad[0]}). Train it again."
        )
    return {**{name: value for name, value in base.items() if not name.startswith(_LEARNED)}, **learned}


def rewrite_info(path: Path, **changes: Any) -> DecoderInfo:
    """Change what the file says (its name, notes or verdict) and leave the weights as they are."""
    from safetensors import safe_open
    from safetensors.numpy import save

    info = replace(read_info(path), **changes)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    _write(path, save(arrays, metadata=_metadata(info)))
    return info


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(content)
    except OSError as error:
        raise CheckpointError(
            f"The decoder {path} cannot be written ({error.strerror or error}). Free some space, or choose a folder "
            "you may write to."
        ) from error


def _metadata(info: DecoderInfo) -> dict[str, str]:
    return {"format": "pt", HEADER: json.dumps({"version": VERSION, **plain(info)})}


@dataclass(frozen=True)
class _Version:
    version: int


def _parsed(path: Path, header: str) -> DecoderInfo:
    try:
        if from_json(_Version, header).version > VERSION:
            raise CheckpointError(f"The decoder {path} was written by a later version. Update napari-medsam.")
        info = from_json(DecoderInfo, header)
        if not 1 <= info.detail <= MOST_DETAIL:
            raise ValueError(f"detail is {info.detail}")
    except ValueError as error:
        raise CheckpointError(
            f"The header of the decoder {path} cannot be read ({error}). Train it again."
        ) from error
    return info
