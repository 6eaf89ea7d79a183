"""A stand-in for a model, of the shape the real one has: it 'sees' whatever fills the box it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medsam.image.field import Frame


@dataclass(frozen=True)
class Encoded:
    features: np.ndarray
    precision: str


@dataclass(frozen=True)
class Decoded:
    logits: np.ndarray
    iou: np.ndarray


class FakeModel:
    def __init__(self) -> None:
        self.frame = Frame(256)
        self.name = "fake"
        self.encoder_hash, self.decoder_hash = "0" * 64, "1" * 64
        self.precision = "fake-float32"
        self.empty = False
        self.encoded: list[np.ndarray] = []
        self.decoded: list[np.ndarray] = []

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        prepared = np.zeros((3, self.frame.size, self.frame.size), np.float32)
        prepared[:, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1) / 255
        return prepared

    def encode(self, prepared: np.ndarray) -> Encoded:
        self.encoded.append(prepared)
        return Encoded(np.full((256, 64, 64), prepared.mean(), np.float16), self.precision)

    def decode(self, features: np.ndarray, boxes: np.ndarray, *, key: str | None = None) -> Decoded:
        assert features.shape == (256, 64, 64)
        assert key
        self.decoded.append(boxes)
        places = (np.arange(256) + 0.5) * self.frame.size / 256
        logits = np.full((len(boxes), 256, 256), -1, np.float32)
        for image, (r0, c0, r1, c1) in zip(logits, boxes, strict=True):
            rows, cols = (r0 <= places) & (places < r1), (c0 <= places) & (places < c1)
            if not self.empty:
                image[np.ix_(rows, cols)] = 1
        return Decoded(logits, np.linspace(0.9, 0.5, len(boxes), dtype=np.float32))
