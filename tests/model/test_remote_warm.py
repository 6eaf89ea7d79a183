"""Features that the model's process was given ahead need not come with a box."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medsam.errors import ModelError
from napari_medsam.image.field import Frame
from napari_medsam.model.messages import LoadedModel, ModelState
from napari_medsam.model.names import find_model
from napari_medsam.model.remote import RemoteMedSAM
from napari_medsam.model.serve import KEPT_FEATURES, Server

FEATURES = np.ones((256, 64, 64), np.float16)
BOX = np.array([[0, 0, 9, 9]], np.float32)
STATE = ModelState(encoder_hash="e", decoder_hash="d", precision="p", device="cpu")


class Kept:
    """A model that remembers what it decoded from."""

    encoder_hash, decoder_hash, precision, device = "e", "d", "p", "cpu"

    def __init__(self) -> None:
        self.warmed: list[str] = []

    def warm(self, _features: Any, *, key: str) -> None:
        self.warmed.append(key)

    def decode(self, features: np.ndarray, boxes: np.ndarray, *, key: str) -> Any:
        assert features.shape == FEATURES.shape
        assert key
        return type("Decoded", (), {"logits": np.zeros((len(boxes), 4, 4)), "iou": np.zeros(len(boxes))})


class Direct:
    """A `ModelProcess` without a process: requests go straight to a server, and their sizes are kept."""

    def __init__(self) -> None:
        self.server = Server(None, None)  # type: ignore[arg-type]
        self.model = Kept()
        self.server._model = self.model  # type: ignore[assignment]
        self.travelled: list[str] = []
        self.ended = False

    def send(self, verb: str, *arguments: Any) -> Any:
        if self.ended:
            raise ModelError("ended")
        if any(isinstance(part, np.ndarray) and part.size == FEATURES.size for part in arguments):
            self.travelled.append(verb)
        return getattr(self.server, verb)(*arguments)

    ask = send


def connect() -> tuple[Direct, RemoteMedSAM]:
    direct = Direct()
    loaded = LoadedModel(find_model("lite-medsam"), Frame(), frozenset(), STATE)
    return direct, RemoteMedSAM(direct, loaded)  # type: ignore[arg-type]


def test_they_travel_once() -> None:
    direct, model = connect()
    model.warm(FEATURES, key="a")
    assert direct.model.warmed == ["a"]
    for _ in range(2):
        model.decode(FEATURES, BOX, key="a")
    assert direct.travelled == ["warm"]


def test_they_come_again_when_the_process_has_dropped_them() -> None:
    direct, model = connect()
    for number in range(KEPT_FEATURES + 1):
        model.warm(FEATURES, key=str(number))
    model.decode(FEATURES, BOX, key="0")
    assert direct.travelled[-1] == "decode"


def test_a_process_that_has_ended_is_left_for_the_next_box_to_find() -> None:
    direct, model = connect()
    direct.ended = True
    model.warm(FEATURES, key="a")
