"""People who click, simulated: where clicks land, how visits go, and what a correction weighs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.losses import pull, round_loss
from napari_medsam.finetune.simulated_clicks import Click, next_click, region_of
from napari_medsam.finetune.simulated_user import BOXES_ONLY, Habits, Plan, draw_plans, plans_of_epoch, play
from napari_medsam.image.field import Frame
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.correction import SURE

FRAME = Frame(32)
BOX = np.array([4, 4, 20, 20], np.float32)


def square(r0: int, c0: int, r1: int, c1: int, side: int = 32) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[r0:r1, c0:c1] = True
    return mask


class TestNextClick:
    def test_the_first_one_lands_in_the_middle_of_the_object(self) -> None:
        assert next_click(square(4, 6, 15, 17), np.zeros((32, 32), bool)) == Click(9, 11, True)

    def test_the_largest_error_comes_first_whatever_its_sign(self) -> None:
        target, found = square(0, 0, 10, 10), square(0, 0, 10, 10)
        found[0:2, 0:2] = False  # 4 pixels missing
        found[20:29, 20:29] = True  # 81 too many
        assert next_click(target, found) == Click(24, 24, False)

    def test_nothing_wrong_needs_no_click(self) -> None:
        assert next_click(square(1, 1, 5, 5), square(1, 1, 5, 5)) is None

    @given(st.integers(0, 2**31), st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_a_click_always_lands_on_an_error_and_says_what_is_true_there(
        self, seed: int, drawn: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        target, found = rng.random((24, 20)) > 0.6, rng.random((24, 20)) > 0.6
        click = next_click(target, found, rng if drawn else None)
        assert click is not None
        assert target[click.row, click.col] != found[click.row, click.col]
        assert click.positive == target[click.row, click.col]
        region = region_of(click, target, found)
        assert region[click.row, click.col]
        assert not (region & (target == found)).any()

    def test_an_object_at_the_edge_is_clicked_inside(self) -> None:
        assert next_click(square(0, 0, 9, 9), np.zeros((32, 32), bool)) == Click(4, 4, True)


class TestPlans:
    def test_equal_seeds_and_epochs_give_equal_plans(self) -> None:
        assert plans_of_epoch(50, 0.4, 3, 2) == plans_of_epoch(50, 0.4, 3, 2)
        assert plans_of_epoch(50, 0.4, 3, 2) != plans_of_epoch(50, 0.4, 3, 3)

    def test_without_clicks_every_visit_is_one_box(self) -> None:
        assert {(plan.start, plan.rounds) for plan in plans_of_epoch(40, 0.0, 0, 1)} == {("box", 1)}

    def test_the_share_of_visits_with_clicks_is_the_one_asked_for(self) -> None:
        plans = plans_of_epoch(4000, 0.4, 0, 1)
        assert np.mean([plan.start == "click" or plan.rounds > 1 for plan in plans]) == pytest.approx(
            0.4, abs=0.06
        )
        assert np.mean([plan.start == "click" for plan in plans]) == pytest.approx(0.2, abs=0.03)

    def test_habits_are_kept(self) -> None:
        plans = draw_plans(2000, Habits(box=0, click=0, mask=1, rounds=(0, 0, 1)), np.random.default_rng(0))
        assert {(plan.start, plan.rounds) for plan in plans} == {("mask", 3)}
        assert len({plan.seed for plan in plans}) > 1990
        assert draw_plans(3, BOXES_ONLY, np.random.default_rng(0))[0].rounds == 1


class Scripted:
    """A decoder that answers with given masks, and keeps the prompts it was asked."""

    def __init__(self, *answers: np.ndarray) -> None:
        self.answers = list(answers)
        self.prompts: list[FramePrompt] = []

    def __call__(self, prompt: FramePrompt) -> tuple[torch.Tensor, torch.Tensor]:
        self.prompts.append(prompt)
        mask = self.answers.pop(0)
        return torch.from_numpy(np.where(mask, 3.0, -3.0).astype(np.float32)), torch.ones(())


class TestPlay:
    target = (square(4, 4, 20, 20) * 255).astype(np.uint8)

    def test_a_box_is_followed_by_clicks_where_the_mask_is_wrong(self) -> None:
        decode = Scripted(square(4, 4, 20, 10), square(4, 4, 20, 20))
        rounds = list(play(decode, self.target, BOX, Plan("box", 2, 1, remembered=1.0), FRAME))
        assert len(rounds) == 2
        first, second = decode.prompts
        assert first.mask is None
        assert not len(first.points)
        assert second.box is not None
        assert second.positive.tolist() == [True]
        assert 10 <= second.points[0, 1] < 20
        assert rounds[0].corrected is None
        assert np.array_equal(rounds[1].corrected, square(4, 10, 20, 20))

    def test_a_visit_ends_where_nothing_is_wrong_any_more(self) -> None:
        decode = Scripted(square(4, 4, 20, 20))
        assert len(list(play(decode, self.target, BOX, Plan("box", 4, 1), FRAME))) == 1

    def test_what_is_far_from_a_click_stays_for_the_next_one(self) -> None:
        short = square(4, 4, 20, 18)
        decode = Scripted(short, np.zeros((32, 32), bool), square(4, 4, 20, 20))
        rounds = list(play(decode, self.target, BOX, Plan("box", 3, 1, remembered=1.0), FRAME))
        assert len(rounds) == 3
        mask = decode.prompts[2].mask
        assert mask is not None
        assert mask[12, 6] == pytest.approx(SURE)  # although the second answer was empty

    def test_the_mask_before_is_shown_as_logits_as_sure_as_ever(self) -> None:
        decode = Scripted(square(4, 4, 20, 10), square(4, 4, 20, 20))
        list(play(decode, self.target, BOX, Plan("box", 2, 1, remembered=1.0), FRAME))
        mask = decode.prompts[1].mask
        assert mask is not None
        assert mask[12, 7] == pytest.approx(SURE)
        row, col = decode.prompts[1].points[0].astype(int)
        assert mask[row, col] == pytest.approx(SURE)  # with a disc around the click
        assert mask[25, 25] == pytest.approx(-SURE)

    def test_a_visit_that_begins_with_a_click_has_no_box_and_a_plus_click_first(self) -> None:
        decode = Scripted(np.zeros((32, 32), bool), square(4, 4, 20, 20))
        list(play(decode, self.target, BOX, Plan("click", 2, 5), FRAME))
        assert all(prompt.box is None for prompt in decode.prompts)
        assert decode.prompts[0].positive.tolist() == [True]
        assert decode.prompts[1].mask is None  # nothing was found that could be shown

    def test_a_visit_that_begins_with_a_mask_shows_one_that_is_wrong(self) -> None:
        decode = Scripted(square(4, 4, 20, 20))
        [answer] = play(decode, self.target, BOX, Plan("mask", 1, 2), FRAME)
        assert decode.prompts[0].mask is not None
        assert len(decode.prompts[0].points) == 1
        assert answer.corrected is not None

    def test_equal_seeds_click_on_equal_places(self) -> None:
        empty = np.zeros((32, 32), bool)
        one, other = Scripted(empty, empty), Scripted(empty, empty)
        for decode in (one, other):
            list(play(decode, self.target, BOX, Plan("click", 2, 7), FRAME))
        assert np.array_equal(one.prompts[1].points, other.prompts[1].points)

    def test_an_object_too_small_for_a_logit_is_shown_as_a_box_only(self) -> None:
        decode = Scripted(np.zeros((32, 32), bool))
        assert len(list(play(decode, np.zeros((32, 32), np.uint8), BOX, Plan("click", 4, 1), FRAME))) == 1
        assert decode.prompts[0].box is not None


class TestRoundLoss:
    target = torch.from_numpy(square(4, 4, 20, 20).astype(np.float32))

    def loss(self, mask: np.ndarray, corrected: np.ndarray | None = None, **weights: float) -> float:
        logits = torch.from_numpy(np.where(mask, 4.0, -4.0).astype(np.float32))
        return float(round_loss(logits, torch.ones(()), self.target, FinetuneConfig(**weights), corrected))

    def test_a_better_mask_costs_less(self) -> None:
        assert (
            self.loss(square(4, 4, 20, 20))
            < self.loss(square(4, 4, 20, 15))
            < self.loss(square(25, 25, 30, 30))
        )

    def test_a_click_that_is_passed_over_costs_its_own_term(self) -> None:
        region = square(4, 15, 20, 20)
        ignored = self.loss(square(4, 4, 20, 15), region) - self.loss(square(4, 4, 20, 15))
        assert ignored == pytest.approx(0.5 * np.log1p(np.exp(4.0)), rel=1e-4)
        heeded = self.loss(square(4, 4, 20, 20), region) - self.loss(square(4, 4, 20, 20))
        assert heeded == pytest.approx(0.5 * np.log1p(np.exp(-4.0)), rel=1e-4)

    def test_an_empty_region_or_no_weight_changes_nothing(self) -> None:
        mask = square(4, 4, 20, 15)
        assert self.loss(mask, np.zeros((32, 32), bool)) == self.loss(mask)
        assert self.loss(mask, square(4, 15, 20, 20), correction=0.0) == self.loss(mask)


class TestPull:
    @staticmethod
    def logits(mask: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.where(mask, 9.0, -9.0).astype(np.float32))

    def pull(self, ours: np.ndarray, told: np.ndarray, true: np.ndarray | None = None) -> float:
        truth = torch.from_numpy((square(4, 4, 20, 20) if true is None else true).astype(np.float32))
        return float(pull(self.logits(ours), self.logits(told), truth, FinetuneConfig()))

    def test_it_draws_to_what_was_told_and_not_to_the_truth(self) -> None:
        told = square(4, 4, 20, 18)
        assert self.pull(told, told) < 0.01
        assert self.pull(square(4, 4, 20, 20), told) > 0.1

    def test_it_weighs_as_much_as_what_was_told_is_right(self) -> None:
        ours, told = square(24, 24, 30, 30), square(4, 4, 20, 20)
        truths = (told, square(4, 4, 20, 12), square(22, 4, 30, 20))
        right, half, wrong = (self.pull(ours, told, true) for true in truths)
        assert half == pytest.approx(right / 2, rel=1e-5)
        assert wrong == 0.0

    def test_it_pulls_on_ours_alone(self) -> None:
        ours = self.logits(square(4, 4, 20, 20)).requires_grad_(True)
        told = self.logits(square(4, 4, 20, 18)).requires_grad_(True)
        pull(ours, told, torch.ones(32, 32), FinetuneConfig()).backward()
        assert ours.grad is not None
        assert told.grad is None
