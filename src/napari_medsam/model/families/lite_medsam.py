"""LiteMedSAM: a TinyViT on 256 pixels a side, the image padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_medsam.model.catalogue import Arch, ModelSpec
from napari_medsam.model.families.family import Family, unit_range

if TYPE_CHECKING:
    from torch import Tensor, nn


def _detect(spec: ModelSpec, state: Mapping[str, Tensor]) -> ModelSpec | None:
    if "image_encoder.patch_embed.seq.0.c.weight" not in state:
        return None
    return replace(spec, family="lite-medsam", arch="tiny_vit", input_size=256)


def _network(_arch: Arch) -> nn.Module:
    from napari_medsam.model.networks.tinyvit import TinyViT

    return TinyViT()


LITE_MEDSAM = Family(squash=False, resample="area", table=unit_range, detect=_detect, network=_network)
