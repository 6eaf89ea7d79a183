"""The image encoders of SAM, built by segment-anything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from napari_medsam.errors import ModelError
from napari_medsam.model.catalogue import Arch

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHAPES: Mapping[Arch, tuple[int, int, int, tuple[int, ...]]] = {
    # width, depth, heads, blocks with global attention
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


def vit_arch(state: Mapping[str, Tensor]) -> Arch | None:
    """Which ViT the weights of a checkpoint are of, by the width of its position embedding; None for another."""
    positions = state.get("image_encoder.pos_embed")
    if positions is None or positions.ndim != 4:
        return None
    return next((arch for arch, shape in _SHAPES.items() if shape[0] == positions.shape[-1]), None)


def vit_encoder(arch: Arch) -> nn.Module:
    """The encoder of an arch, (1, 3, 1024, 1024) to (1, 256, 64, 64). Raises ModelError: not installed."""
    from torch import nn

    try:
        from segment_anything.modeling import ImageEncoderViT
    except ImportError as error:
        raise ModelError(
            f"ViT models need segment-anything and torchvision ({error}). "
            "Install them: pip install segment-anything torchvision"
        ) from error
    width, depth, heads, global_blocks = _SHAPES[arch]
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
