"""An encoder that costs next to nothing, so that a benchmark measures all that is around an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_medsam.image.field import Frame

CHANNELS = 16  # of 256 that are not zero: 20,000 embeddings then fit on a disk, once compressed


@dataclass(frozen=True)
class TinyEncoded:
    features: np.ndarray
    precision: str


class TinyEncoder:
    """What embedding needs of a model. Features are the 4 x 4 pixels of each patch."""

    name = "tiny"
    frame = Frame()
    encoder_hash = "0" * 64
    precision = "tiny-float32"

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        prepared = np.zeros((self.frame.size, self.frame.size), np.float32)
        prepared[: pixels.shape[0], : pixels.shape[1]] = pixels.mean(axis=2) / np.float32(255)
        return prepared

    def encode(self, prepared: np.ndarray) -> TinyEncoded:
        features = np.zeros((256, 64, 64), np.float16)
        patches = prepared.reshape(64, 4, 64, 4).transpose(1, 3, 0, 2)
        features[:CHANNELS] = patches.reshape(CHANNELS, 64, 64)
        return TinyEncoded(features, self.precision)


@dataclass(frozen=True)
class TinyChoice:
    """The encoder as `training/embed.py` takes a model: it travels to any worker."""

    def load(self) -> TinyEncoder:
        return TinyEncoder()

    def identity(self) -> list[Any]:
        return ["tiny"]
