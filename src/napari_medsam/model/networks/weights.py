"""Weights into networks, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.model.catalogue import Arch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_medsam.model.networks.decoder import SamDecoder

_ENCODER = "image_encoder."
_DECODER = ("prompt_encoder.", "mask_decoder.")
_VIT = {  # width, depth, heads, blocks with global attention
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


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


def build_encoder(arch: Arch, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """The image encoder with its weights, in evaluation mode, on the CPU.

    It takes (1, 3, S, S) and gives (1, 256, 64, 64). Raises CheckpointError naming `source`.
    """
    import torch

    with torch.device("meta"):  # no time is spent on initial values that are replaced at once
        module = _encoder_module(arch)
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


def _encoder_module(arch: Arch) -> nn.Module:
    if arch == "tiny_vit":
        from napari_medsam.model.networks.tinyvit import TinyViT

        return TinyViT()
    from functools import partial

    from torch import nn

    try:
        from segment_anything.modeling import ImageEncoderViT
    except ImportError as error:
        raise ModelError(
            f"ViT models need segment-anything and torchvision ({error}). "
            "Install them: pip install segment-anything torchvision"
        ) from error
    width, depth, heads, global_blocks = _VIT[arch]
    module: nn.Module = ImageEncoderViT(
        img_size=1024,
        patch_size=16,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=4,
        out_chans=256,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=global_blocks,
    )
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
