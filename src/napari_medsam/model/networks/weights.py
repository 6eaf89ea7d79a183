"""Weights into networks, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_medsam.model.networks.decoder import SamDecoder

_ENCODER = "image_encoder."
_DECODER = ("prompt_encoder.", "mask_decoder.")


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's part of a checkpoint, without its prefix."""
    return {name.removeprefix(_ENCODER): value for name, value in state.items() if name.startswith(_ENCODER)}


def decoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prompt encoder's and mask decoder's part of a checkpoint, with their prefixes."""
    return {name: value for name, value in state.items() if name.startswith(_DECODER)}


def state_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, dtypes, shapes and bytes, sorted by name: equal for equal weights only."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            raw: npt.NDArray[np.uint8] = value.view(-1).view(torch.uint8).numpy()
            digest.update(raw.data)
    return digest.hexdigest()


def build_encoder(network: Callable[[], nn.Module], state: Mapping[str, Tensor], source: str) -> nn.Module:
    """An image encoder with its weights, in evaluation mode, on the CPU.

    It takes (1, 3, S, S) and gives (1, 256, 64, 64). Raises CheckpointError naming `source`.
    """
    import torch

    with torch.device("meta"):  # no time is spent on initial values that are replaced at once
        module = network()
    return _filled(module, state, source)


def build_decoder(state: Mapping[str, Tensor], size: int, source: str) -> SamDecoder:
    """The decoder with its weights, in evaluation mode, on the CPU; `size` is the frame's side.

    Raises CheckpointError naming `source`.
    """
    import torch

    from napari_medsam.model.networks.decoder import SamDecoder

    with torch.device("meta"):
        module = SamDecoder(size)
    _filled(module, state, source)
    return module


def _filled(module: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    import torch

    owned = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        missing, unknown = module.load_state_dict(owned, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {source} have the wrong shapes: {error}") from error
    # Batch counters steer training only, and some exports leave them out.
    absent = [name for name in missing if not name.endswith("num_batches_tracked")]
    if absent or unknown:
        raise CheckpointError(
            f"The weights in {source} do not fit this model: missing {absent[:3]}, unknown {unknown[:3]}."
        )
    for name, value in list(module.named_buffers()):
        if value.is_meta:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, torch.zeros(value.shape, dtype=value.dtype))
    return module.eval()
