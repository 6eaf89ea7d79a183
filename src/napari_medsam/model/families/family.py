"""What differs between the model families: how pixels are prepared, and which family a checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import CheckpointError, ImageError
from napari_medsam.image.field import Frame
from napari_medsam.model.catalogue import MODELS, Arch, Family, ModelSpec
from napari_medsam.model.checkpoint import matches_checksum

if TYPE_CHECKING:
    from torch import Tensor

_VIT_BY_WIDTH: Mapping[int, Arch] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
# Colour statistics SAM was trained with (RGB, 0-255).
_SAM_MEAN = np.array([123.675, 116.28, 103.53])
_SAM_STD = np.array([58.395, 57.12, 57.375])


def family_frame(family: Family, size: int) -> Frame:
    """How the family's training fitted an image into its input of `size` pixels."""
    if family == "medsam":
        return Frame(size, squash=True, resample="bicubic")
    return Frame(size, resample="area" if family == "lite-medsam" else "bilinear")


def prepare_pixels(family: Family, size: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(h', w', 3) uint8, already fitted to the frame, to the float32 (3, size, size) the encoder eats.

    MedSAM families: minimum and maximum of the image to [0, 1] (a constant image gives zeros). SAM: colour
    mean and standard deviation. Then zeros at the bottom and right. C-contiguous.
    Raises ImageError when the pixels do not fit.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or max(pixels.shape) > size:
        raise ImageError(
            f"The model takes (h, w, 3) uint8 pixels of at most {size} x {size}, not {pixels.shape} "
            f"{pixels.dtype}. Read them with read_field and the model's frame."
        )
    levels = np.arange(256.0)[:, None]
    if family == "sam":
        table = (levels - _SAM_MEAN) / _SAM_STD
    else:
        low, high = float(pixels.min()), float(pixels.max())
        table = np.repeat((levels - low) / max(high - low, 1e-8), 3, axis=1)
    out = np.zeros((3, size, size), dtype=np.float32)
    for channel in range(3):
        out[channel, : pixels.shape[0], : pixels.shape[1]] = table[:, channel].astype(np.float32)[
            pixels[..., channel]
        ]
    return out


def settle_family(spec: ModelSpec, state: Mapping[str, Tensor]) -> ModelSpec:
    """`spec` with family and arch read off the weights where it leaves them open.

    TinyViT is LiteMedSAM. A ViT-B file can be SAM's or MedSAM's, whose shapes are the same: it counts as
    SAM's when its name begins with "sam_" or its checksum is that of the published file, else as MedSAM's.
    ViT-L and ViT-H are SAM's, unless the name begins with "medsam".
    Raises CheckpointError naming the file when the weights are of none of these, or not of `spec`'s arch.
    """
    arch = _detect_arch(spec, state)
    if spec.arch != "auto":
        if arch != spec.arch:
            raise CheckpointError(
                f"{spec.file_name} holds a {arch} model, not the {spec.arch} of {spec.name}."
            )
        return spec
    if arch == "tiny_vit":
        return replace(spec, family="lite-medsam", arch=arch, input_size=256)
    if _looks_like_sam(spec, arch):
        return replace(spec, family="sam", arch=arch, prompts=frozenset({"box", "point"}))
    return replace(spec, family="medsam", arch=arch)


def _detect_arch(spec: ModelSpec, state: Mapping[str, Tensor]) -> Arch:
    place = spec.path or spec.file_name
    if "mask_decoder.iou_token.weight" not in state:
        raise CheckpointError(
            f"{place} has no SAM mask decoder (its first weight is {next(iter(state))!r}). "
            "Choose the checkpoint of a LiteMedSAM, MedSAM or SAM (version 1) model."
        )
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return "tiny_vit"
    place_code = state.get("image_encoder.pos_embed")
    if place_code is None or place_code.ndim != 4 or place_code.shape[-1] not in _VIT_BY_WIDTH:
        raise CheckpointError(
            f"The image encoder in {place} is neither TinyViT nor ViT-B, ViT-L or ViT-H of SAM."
        )
    return _VIT_BY_WIDTH[place_code.shape[-1]]


def _looks_like_sam(spec: ModelSpec, arch: Arch) -> bool:
    name = spec.file_name.lower()
    if name.startswith("sam_"):
        return True
    if arch != "vit_b":
        return not name.startswith("medsam")
    known = MODELS["sam-vit-b"]  # only a file of its size is worth hashing
    return spec.path is not None and spec.size == known.size and matches_checksum(spec.path, known)
