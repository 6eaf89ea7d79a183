"""A model without a network, for the session and the window: quick, predictable, and it can be held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_medsam.errors import Cancelled
from napari_medsam.image.field import Frame
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.correction import correction_of, mask_prompt, settled, suggested
from napari_medsam.segment.prompt import Point

PATIENCE_S = 20.0
SIDE = 256
CLICK = 20


@dataclass(frozen=True)
class FakeEncoded:
    features: np.ndarray
    precision: str


@dataclass(frozen=True)
class FakeDecoded:
    logits: np.ndarray
    iou: np.ndarray


@dataclass(eq=False)
class FakeMedSAM:
    """What `MedSAM` offers. A mask fills its box; with `look`, only where the image is bright inside the box.

    Where `prompts` has "point": a plus click adds a square of `CLICK` frame pixels to the earlier mask (else to the
    box, else to nothing), a minus click takes one away.

    `gate`: while it is not set, an encode waits; `encoding` is set as soon as one has begun. `encoded` holds every
    prepared tensor, `decoded` every box as (r0, c0, r1, c1) in frame pixels, `prompted` every other
    prompt, `warmed` every key. `encode_error` and
    `decode_error` are raised once each.
    """

    name: str = "fake"
    look: bool = False
    encoder_hash: str = "e" * 64
    decoder_hash: str = "d" * 64
    precision: str = "fake-float32"
    device: str = "cpu"
    spec: Any = None
    prompts: frozenset[str] = frozenset({"box"})
    frame: Frame = field(default_factory=Frame)
    gate: threading.Event = field(default_factory=threading.Event)
    encoding: threading.Event = field(default_factory=threading.Event)
    encoded: list[np.ndarray] = field(default_factory=list)
    decoded: list[tuple[float, ...]] = field(default_factory=list)
    prompted: list[FramePrompt] = field(default_factory=list)
    warmed: list[str] = field(default_factory=list)
    encode_error: Exception | None = None
    decode_error: Exception | None = None
    iou: float = 0.9
    closed: bool = False
    alive: bool = True

    def __post_init__(self) -> None:
        self.gate.set()

    def hold(self) -> None:
        """Let the next encode wait until `release`."""
        self.encoding.clear()
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()

    def close(self) -> None:
        """End an encode that is under way, as a model in a process of its own does."""
        self.closed = True
        self.release()

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        prepared = np.zeros((3, self.frame.size, self.frame.size), np.float32)
        prepared[:, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1) / np.float32(255)
        return prepared

    def encode(self, prepared: np.ndarray) -> FakeEncoded:
        self.encoded.append(prepared)
        self.encoding.set()
        assert self.gate.wait(PATIENCE_S), "nobody released the encoder"
        error, self.encode_error = self.encode_error, None
        if error is not None:
            raise error
        features = np.zeros((SIDE, 64, 64), np.float16)
        features[:16] = prepared.mean(axis=0).reshape(64, 4, 64, 4).transpose(1, 3, 0, 2).reshape(16, 64, 64)
        return FakeEncoded(features, self.precision)

    def warm(self, features: np.ndarray, *, key: str) -> None:
        assert features.shape == (SIDE, 64, 64)
        self.warmed.append(key)

    def decode(self, features: np.ndarray, boxes: np.ndarray, *, key: str | None = None) -> FakeDecoded:
        assert features.shape == (SIDE, 64, 64)
        assert key
        self.decoded.extend(tuple(float(edge) for edge in box) for box in boxes)
        self._break()
        seen = np.ones((SIDE, SIDE), bool)
        if self.look:
            grey = features[:16].reshape(4, 4, 64, 64).transpose(2, 0, 3, 1).reshape(SIDE, SIDE)
            seen = grey > 0.5
        logits = np.full((len(boxes), SIDE, SIDE), -1, np.float32)
        centres = np.arange(SIDE) + 0.5
        for image, (r0, c0, r1, c1) in zip(logits, boxes, strict=True):
            inside = ((r0 <= centres) & (centres < r1))[:, None] & ((c0 <= centres) & (centres < c1))[None]
            image[inside & seen] = 1
        return FakeDecoded(logits, np.full(len(boxes), self.iou, np.float32))

    def decode_prompt(
        self, features: np.ndarray, prompt: FramePrompt, *, key: str | None = None
    ) -> FakeDecoded:
        assert features.shape == (SIDE, 64, 64)
        assert key
        assert "point" in self.prompts or not len(prompt.points)
        self.prompted.append(prompt)
        self._break()
        mask = np.zeros((SIDE, SIDE), bool)
        if prompt.mask is not None:
            mask = prompt.mask > 0
        elif prompt.box is not None:
            r0, c0, r1, c1 = (round(float(edge)) for edge in prompt.box)
            mask[max(r0, 0) : r1, max(c0, 0) : c1] = True
        for (row, col), positive in zip(prompt.points, prompt.positive, strict=True):
            r0, c0 = (max(round(float(place)) - CLICK // 2, 0) for place in (row, col))
            mask[r0 : r0 + CLICK, c0 : c0 + CLICK] = positive
        logits = np.where(mask, 1, -1).astype(np.float32)[None]
        return FakeDecoded(logits, np.full(1, self.iou, np.float32))

    def _break(self) -> None:
        error, self.decode_error = self.decode_error, None
        if error is not None:
            raise error


@dataclass(eq=False)
class FakeLoader:
    """What `Session` loads models with: gives the models by name, and keeps what it was asked for.

    `errors` are raised first, one a call. While `gate` is not set, a load waits; where it `obeys`, it ends when it is
    no longer wanted.
    """

    models: dict[str, FakeMedSAM]
    errors: list[Exception] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    loading: threading.Event = field(default_factory=threading.Event)
    obeys: bool = True

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, name: str, *, stopping: Callable[[], bool] = lambda: False, **_: Any) -> FakeMedSAM:
        self.asked.append(name)
        self.loading.set()
        deadline = time.monotonic() + PATIENCE_S
        while not self.gate.wait(0.005):
            assert time.monotonic() < deadline, "nobody let the loader go on"
            if self.obeys and stopping():
                raise Cancelled(f"Loading {name} was cancelled.")
        if self.errors:
            raise self.errors.pop(0)
        return self.models[name]


def square(point: Point) -> np.ndarray:
    """What the fake model adds or takes away for a click on a field of its own size."""
    mask = np.zeros((SIDE, SIDE), bool)
    r0, c0 = int(point.row) - CLICK // 2, int(point.col) - CLICK // 2
    mask[r0 : r0 + CLICK, c0 : c0 + CLICK] = True
    return mask


def shown(mask: np.ndarray, point: Point) -> np.ndarray:
    """The mask prompt that goes with a click on a mask, as a mask."""
    change = correction_of(mask, point.row, point.col, point.positive)
    prompt = mask_prompt(suggested(mask, change), Frame())
    return np.zeros_like(mask) if prompt is None else prompt > 0


def clicked(mask: np.ndarray, *points: Point) -> np.ndarray:
    """What clicks make of a mask: the fake model's squares on what it was shown, within reach of each click."""
    for point in points:
        answered = shown(mask, point)
        answered[square(point)] = point.positive
        mask = settled(mask, answered, correction_of(mask, point.row, point.col, point.positive))
    return mask
