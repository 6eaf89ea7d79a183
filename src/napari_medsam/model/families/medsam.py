"""MedSAM: a ViT of SAM on 1024 pixels a side, the image stretched to a square."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.families.family import Family, unit_range
from napari_medsam.model.networks.vit import vit_arch, vit_encoder

if TYPE_CHECKING:
    from torch import Tensor


def _detect(spec: ModelSpec, state: Mapping[str, Tensor]) -> ModelSpec | None:
    arch = vit_arch(state)
    return None if arch is None else replace(spec, family="medsam", arch=arch)


MEDSAM = Family(squash=True, resample="bicubic", table=unit_range, detect=_detect, network=vit_encoder)
