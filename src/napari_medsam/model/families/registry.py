"""Picks a model family: by its name, or for the weights of a file that does not say."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_medsam.errors import CheckpointError
from napari_medsam.model.catalogue import FamilyName, ModelSpec
from napari_medsam.model.families.family import Family
from napari_medsam.model.families.lite_medsam import LITE_MEDSAM
from napari_medsam.model.families.medsam import MEDSAM
from napari_medsam.model.families.sam import SAM

if TYPE_CHECKING:
    from torch import Tensor

# SAM before MedSAM: it knows its own files, and what is left of that shape counts as MedSAM's.
FAMILIES: Mapping[FamilyName, Family] = MappingProxyType(
    {"lite-medsam": LITE_MEDSAM, "sam": SAM, "medsam": MEDSAM}
)


def settle_family(spec: ModelSpec, state: Mapping[str, Tensor]) -> ModelSpec:
    """`spec` with family and arch read off the weights where it leaves them open.

    TinyViT is LiteMedSAM. A ViT-B counts as SAM's when its name begins with "sam_" or its checksum is that of the
    published file, else as MedSAM's. ViT-L and ViT-H are SAM's, unless the name begins with "medsam".
    Raises CheckpointError naming the file when the weights are of none of these, or not of `spec`'s arch.
    """
    file = spec.path or spec.file_name
    if "mask_decoder.iou_token.weight" not in state:
        raise CheckpointError(
            f"{file} has no SAM mask decoder (its first weight is {next(iter(state))!r}). "
            "Choose the checkpoint of a LiteMedSAM, MedSAM or SAM (version 1) model."
        )
    candidates = (family.detect(spec, state) for family in FAMILIES.values())
    found = next((candidate for candidate in candidates if candidate is not None), None)
    if found is None:
        raise CheckpointError(
            f"The image encoder in {file} is neither TinyViT nor ViT-B, ViT-L or ViT-H of SAM. "
            "Choose the checkpoint of a LiteMedSAM, MedSAM or SAM (version 1) model."
        )
    if spec.arch not in ("auto", found.arch):
        raise CheckpointError(
            f"{spec.file_name} holds a {found.arch} model, not the {spec.arch} of {spec.name}. "
            "Fetch the file again, or choose the model it belongs to."
        )
    return found if spec.arch == "auto" else spec
