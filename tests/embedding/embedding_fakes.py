"""A model without a network: its features are a fingerprint of all that an embedding may depend on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_medsam.embedding.embed import FieldRequest
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field, Frame
from napari_medsam.image.plane import Plane

SHAPE = (256, 64, 64)


def fingerprint(prepared: np.ndarray, encoder_hash: str, precision: str) -> np.ndarray:
    """Features that change with any bit of the tensor, its shape, its dtype, the hash or the precision."""
    text = f"{prepared.shape}|{prepared.dtype}|{encoder_hash}|{precision}|".encode()
    digest = hashlib.sha512(text + prepared.tobytes()).digest()
    return np.resize(np.frombuffer(digest, np.uint8).astype(np.float16), SHAPE)


@dataclass(frozen=True)
class FakeEncoded:
    features: np.ndarray
    precision: str


@dataclass
class FakeModel:
    name: str = "fake"
    encoder_hash: str = "e0"
    decoder_hash: str = "d0"
    precision: str = "torch-float32"
    frame: Frame = field(default_factory=lambda: Frame(32))
    fall_back: str | None = None  # the precision that an encode really ends up with
    before_encode: Callable[[np.ndarray], None] = lambda _: None
    encoded: list[np.ndarray] = field(default_factory=list)

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        size = self.frame.size
        prepared = np.zeros((3, size, size), np.float32)
        prepared[:, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1) / np.float32(255)
        return prepared

    def encode(self, prepared: np.ndarray) -> FakeEncoded:
        self.encoded.append(prepared)
        self.before_encode(prepared)
        precision = self.fall_back or self.precision
        return FakeEncoded(fingerprint(prepared, self.encoder_hash, precision), precision)

    @property
    def calls(self) -> int:
        return len(self.encoded)


class Gate:
    """Holds each encode until the test lets it go; `started` counts those that have begun."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._open = False

    def __call__(self, _: np.ndarray) -> None:
        self.started.release()
        if not self._open:
            assert self._go.acquire(timeout=20)

    def wait_started(self) -> None:
        assert self.started.acquire(timeout=20)

    def let_go(self, n: int = 1) -> None:
        self._go.release(n)

    def open(self) -> None:
        self._open = True
        self._go.release(1000)


def make_plane(seed: int = 0, shape: tuple[int, ...] = (40, 48), name: str = "image") -> Plane:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Plane.from_array(pixels, name=name)


def make_request(plane: Plane, at: int | None = None, **more: Any) -> FieldRequest:
    """Ask for the whole plane, or for the 8 x 8 field number `at`, left to right."""
    where = None if at is None else Field(0, 4 * at, 8, 8, "grid")
    return FieldRequest(plane, Contrast("window", (0.0, 255.0)), where, **more)
