"""What a decoder is shown of its own earlier masks while it learns: mostly there, now and then not."""

from __future__ import annotations

import numpy as np
import torch

from napari_medsam.finetune.simulated_user import Habits, draw_plans, play
from napari_medsam.image.field import Frame
from napari_medsam.model.frame_prompt import FramePrompt

FRAME = Frame(32)
BOX = np.array([4, 4, 20, 20], np.float32)


def square(r0: int, c0: int, r1: int, c1: int) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[r0:r1, c0:c1] = True
    return mask


def second_prompts(habits: Habits, visits: int) -> list[FramePrompt]:
    """What is asked after a first mask that lacks a part."""
    asked: list[FramePrompt] = []

    def decode(prompt: FramePrompt) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(prompt)
        return torch.from_numpy(np.where(square(4, 4, 20, 10), 3.0, -3.0).astype(np.float32)), torch.ones(())

    found = []
    target = (square(4, 4, 20, 20) * 255).astype(np.uint8)
    for plan in draw_plans(visits, habits, np.random.default_rng(0)):
        asked.clear()
        assert len(list(play(decode, target, BOX, plan, FRAME))) == 2
        found.append(asked[1])
    return found


def test_the_earlier_mask_is_shown_in_most_rounds_and_not_in_all() -> None:
    prompts = second_prompts(Habits(box=1, click=0, mask=0, rounds=(0, 1)), 200)
    shown = np.mean([prompt.mask is not None for prompt in prompts])
    assert 0.7 < shown < 0.9


def test_never_or_always_where_habits_say_so() -> None:
    for remembered in (0.0, 1.0):
        habits = Habits(box=1, click=0, mask=0, rounds=(0, 1), remembered=remembered)
        assert {prompt.mask is not None for prompt in second_prompts(habits, 20)} == {remembered == 1.0}


def test_a_mask_somebody_painted_is_wrong_by_a_part_of_the_object_and_not_by_all_of_it() -> None:
    """A visit that begins with a mask: it overlaps the object, and differs from it."""
    wanted, scores = square(4, 4, 20, 20), []
    target = (wanted * 255).astype(np.uint8)

    def decode(prompt: FramePrompt) -> tuple[torch.Tensor, torch.Tensor]:
        if prompt.mask is not None:
            shown = prompt.mask > 0
            scores.append((shown & wanted).sum() / (shown | wanted).sum())
        return torch.zeros(32, 32), torch.ones(())

    for plan in draw_plans(150, Habits(box=0, click=0, mask=1, rounds=(1,)), np.random.default_rng(1)):
        list(play(decode, target, BOX, plan, FRAME))
    assert len(scores) > 120
    assert 0.6 < np.median(scores) < 0.95
    assert min(scores) < 0.6  # some lack a good part of it, or have much too much
