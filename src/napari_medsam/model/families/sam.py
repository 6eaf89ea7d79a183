"""SAM, version 1: a ViT on 1024 pixels a side, the image padded, normalised by the colours of its training set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.model.catalogue import MODELS, Arch, ModelSpec
from napari_medsam.model.checkpoint import matches_checksum
from napari_medsam.model.families.family import Family, Pixels, Table
from napari_medsam.model.networks.vit import vit_arch, vit_encoder

if TYPE_CHECKING:
    from torch import Tensor

# Colour statistics SAM was trained with (RGB, 0-255).
_MEAN = np.array([123.675, 116.28, 103.53])
_STD = np.array([58.395, 57.12, 57.375])


def _table(_pixels: Pixels) -> Table:
    levels: Table = (np.arange(256.0)[:, None] - _MEAN) / _STD
    return levels


def _detect(spec: ModelSpec, state: Mapping[str, Tensor]) -> ModelSpec | None:
    arch = vit_arch(state)
    if arch is None or not _is_sam(spec, arch):
        return None
    return replace(spec, family="sam", arch=arch, prompts=frozenset({"box", "point"}))


def _is_sam(spec: ModelSpec, arch: Arch) -> bool:
    """A ViT-B file can be SAM's or MedSAM's, whose shapes are the same: its name and its checksum tell."""
    name = spec.file_name.lower()
    if name.startswith("sam_"):
        return True
    if arch != "vit_b":
        return not name.startswith("medsam")
    known = MODELS["sam-vit-b"]  # only a file of its size is worth hashing
    return spec.path is not None and spec.size == known.size and matches_checksum(spec.path, known)


SAM = Family(squash=False, resample="bilinear", table=_table, detect=_detect, network=vit_encoder)
