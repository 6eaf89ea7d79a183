"""Where fields overlap, each is believed in its middle and hardly at its rim."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_medsam.embedding.embed import Embedding
from napari_medsam.image.contrast import Window
from napari_medsam.image.field import Field, Frame
from napari_medsam.image.plane import Plane
from napari_medsam.segment.detail import Blend, field_weights
from napari_medsam.segment.prompt import Box

SHAPE = (64, 96)
LEFT, RIGHT = Field(0, 0, 64, 64, "grid"), Field(0, 32, 64, 64, "grid")


class Says:
    """A model that says one logit all over the field it is shown."""

    def __init__(self) -> None:
        self.frame = Frame(64)
        self.logit = 0.0

    def decode(self, _features: np.ndarray, _boxes: np.ndarray, *, key: str) -> Any:
        assert key
        return SimpleNamespace(
            logits=np.full((1, 64, 64), self.logit, np.float32), iou=np.ones(1, np.float32)
        )


def blended(left: float, right: float) -> Blend:
    """Two fields, half of one lying on half of the other, each of which says something else."""
    plane, model = Plane.from_array(np.zeros(SHAPE, np.uint8)), Says()
    blend = Blend(Box(0, 0, *SHAPE), (LEFT, RIGHT), SHAPE)
    for field, model.logit in ((LEFT, left), (RIGHT, right)):
        features = np.zeros((256, 64, 64), np.float16)
        blend.add(model, Embedding(repr(field), features, field, Window(((0, 1),), (0,)), plane, True))  # type: ignore[arg-type]
    return blend


@pytest.mark.parametrize("length", [32, 33, 64, 255, 256])
def test_weights_rise_from_almost_nothing_to_all_in_the_middle(length: int) -> None:
    weights = field_weights(length)
    middle = length // 2
    assert weights[middle] == pytest.approx(1, abs=0.01)
    assert weights[0] == pytest.approx(0.01, abs=0.01)
    assert (np.diff(weights[: (length + 1) // 2]) > 0).all()
    assert weights[length // 4] == pytest.approx(0.5, abs=0.06)


def test_in_its_middle_a_field_is_believed_against_a_neighbour() -> None:
    logits = blended(1.0, -1.0).logits()
    assert (logits[:, :32] == 1).all()  # the left one alone
    assert (logits[:, 64:] == -1).all()
    overlap = logits[32, 32:64]
    assert overlap[0] > 0.95  # middle of the left field, rim of the right one
    assert overlap[-1] < -0.95
    assert (np.diff(overlap) < 0).all()
    assert overlap[15:17] == pytest.approx([0.05, -0.05], abs=0.06)


def test_half_way_between_the_surer_field_decides() -> None:
    mask = blended(3.0, -1.0).prediction().full(SHAPE)[32]
    edge = int(mask.sum())
    assert mask[:edge].all()
    assert 50 <= edge <= 56  # equal fields part at 48
