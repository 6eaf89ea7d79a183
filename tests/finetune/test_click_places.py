"""A click in training lands where the same click in the window does: half a pixel off, and all of it is learned off."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_medsam.embedding.embed import Embedding
from napari_medsam.finetune.simulated_clicks import Click
from napari_medsam.finetune.simulated_user import click_arrays
from napari_medsam.image.contrast import Window
from napari_medsam.image.field import Frame, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.clicks import answer
from napari_medsam.segment.prompt import Point, Prompt

CLICKS = (Click(0, 0, True), Click(10, 37, False), Click(63, 5, True))


@dataclass
class Asked:
    """A model that keeps what it is asked, and answers with nothing."""

    frame: Frame
    prompts: frozenset[str] = frozenset({"box", "point"})
    name: str = "asked"
    asked: list[FramePrompt] = field(default_factory=list)

    def decode_prompt(self, _features: np.ndarray, prompt: FramePrompt, *, key: str) -> Any:
        assert key
        self.asked.append(prompt)
        side = min(256, self.frame.size)
        return SimpleNamespace(logits=np.full((1, side, side), -1, np.float32), iou=np.ones(1, np.float32))


def in_the_window(frame: Frame, logits: int) -> FramePrompt:
    """The same clicks on a plane of one pixel a logit."""
    plane = Plane.from_array(np.zeros((logits, logits), np.uint8))
    features = np.zeros((256, 64, 64), np.float16)
    embedding = Embedding("k", features, whole_field(plane.shape), Window(((0, 1),), (0,)), plane, True)
    model = Asked(frame)
    points = tuple(Point(click.row, click.col, click.positive) for click in CLICKS)
    answer(model, embedding, Prompt(None, points))  # type: ignore[arg-type]
    return model.asked[0]


@pytest.mark.parametrize(("frame", "logits"), [(Frame(64), 64), (Frame(256), 256), (Frame(1024), 256)])
def test_a_click_on_a_logit_is_shown_where_the_window_shows_it(frame: Frame, logits: int) -> None:
    points, positive = click_arrays(CLICKS, frame)
    asked = in_the_window(frame, logits)
    np.testing.assert_allclose(points, asked.points, atol=1e-5)
    assert positive.tolist() == asked.positive.tolist() == [True, False, True]


def test_a_logit_of_one_frame_pixel_is_that_pixel() -> None:
    points, _ = click_arrays(CLICKS, Frame(256))
    assert points.tolist() == [[0, 0], [10, 37], [63, 5]]


def test_a_logit_of_four_frame_pixels_is_clicked_in_its_middle() -> None:
    points, _ = click_arrays(CLICKS[1:2], Frame(1024))
    assert points.tolist() == [[41.5, 149.5]]  # of the frame's pixels 40 to 43 and 148 to 151


def test_no_clicks_are_no_points() -> None:
    points, positive = click_arrays([], Frame(256))
    assert (points.shape, positive.shape) == ((0, 2), (0,))
