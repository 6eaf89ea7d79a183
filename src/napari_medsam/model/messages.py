"""What the process that holds a model tells of it; `remote` and `serve` send no other types but arrays and specs."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medsam.image.field import Frame
from napari_medsam.model.catalogue import ModelSpec


@dataclass(frozen=True)
class ModelState:
    """What may change while a model is in use; see `napari_medsam.model.local.MedSAM`."""

    encoder_hash: str
    decoder_hash: str
    precision: str
    device: str


@dataclass(frozen=True)
class LoadedModel:
    """A model that was loaded, or that took another decoder."""

    spec: ModelSpec
    frame: Frame
    prompts: frozenset[str]
    state: ModelState
