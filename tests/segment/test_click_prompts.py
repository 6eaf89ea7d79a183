"""Clicks in plane pixels to what the model is asked, and the field of a lone click."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from napari_medsam.embedding.embed import Embedding
from napari_medsam.errors import ModelError, PromptError
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.contrast import Window
from napari_medsam.image.field import Field, Frame, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment.clicks import answer, check_learned, click_box, lone_click
from napari_medsam.segment.correction import SURE
from napari_medsam.segment.fields import FieldPolicy
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt
from napari_medsam.segment.segmenter import Segmenter

FRAME = Frame(256)


@dataclass(frozen=True)
class Answer:
    logits: np.ndarray
    iou: np.ndarray


@dataclass
class Clicked:
    """Marks a square of `half` frame pixels around each plus click, and keeps what it was asked."""

    half: int = 10
    frame: Frame = FRAME
    prompts: frozenset[str] = frozenset({"box", "point"})
    name: str = "clicked"
    asked: list[FramePrompt] = field(default_factory=list)

    def decode_prompt(self, features: np.ndarray, prompt: FramePrompt, *, key: str | None = None) -> Answer:
        assert features.shape == (256, 64, 64)
        assert key
        self.asked.append(prompt)
        logits = np.full((256, 256), -1, np.float32)
        for row, col in np.round(prompt.points[prompt.positive]).astype(int):
            logits[max(row - self.half, 0) : row + self.half, max(col - self.half, 0) : col + self.half] = 1
        return Answer(logits[None], np.array([0.7], np.float32))


class Bounded(Clicked):
    """The same, with nothing outside what was asked for."""

    def decode_prompt(self, features: np.ndarray, prompt: FramePrompt, *, key: str | None = None) -> Answer:
        found = super().decode_prompt(features, prompt, key=key)
        assert prompt.within is not None
        r0, c0, r1, c1 = (round(edge) for edge in prompt.within)
        near = np.full_like(found.logits, -32)
        near[:, max(r0, 0) : r1, max(c0, 0) : c1] = found.logits[:, max(r0, 0) : r1, max(c0, 0) : c1]
        return Answer(near, found.iou)


def embedding(region: Field) -> Embedding:
    plane = Plane.from_array(np.zeros((512, 512), np.uint8))
    return Embedding(
        "key", np.zeros((256, 64, 64), np.float16), region, Window(((0.0, 1.0),), (0,)), plane, True
    )


def asked(prompt: Prompt, earlier: Patch | None, region: Field) -> FramePrompt:
    """What the model is asked."""
    model: Any = Clicked()
    answer(model, embedding(region), prompt, earlier)
    return model.asked[0]


class TestFramePrompt:
    def test_a_click_on_a_pixel_lands_on_the_same_pixel_of_a_field_shown_as_it_is(self) -> None:
        prompt = Prompt(None, (Point(110, 120), Point(130, 140, False)))
        said = asked(prompt, None, Field(100, 100, 256, 256))
        assert said.points.tolist() == [[10, 20], [30, 40]]
        assert said.positive.tolist() == [True, False]
        assert said.box is None
        assert said.mask is None

    def test_the_middle_of_a_pixel_stays_the_middle_where_the_field_is_reduced(self) -> None:
        said = asked(Prompt(None, (Point(10, 21),)), None, whole_field((512, 512)))
        assert said.points.tolist() == [[4.75, 10.25]]  # pixel 10 covers 10..11, so frame pixels 5..5.5

    def test_clicks_outside_the_field_are_left_out(self) -> None:
        prompt = Prompt(Box(110, 110, 150, 150), (Point(120, 120), Point(5, 5, False)))
        said = asked(prompt, None, Field(100, 100, 64, 64))
        assert len(said.points) == 1
        assert said.box is not None

    def test_a_prompt_with_nothing_on_the_field_is_refused(self) -> None:
        with pytest.raises(ModelError, match="box or a click"):
            asked(Prompt(None, (Point(5, 5),)), None, Field(100, 100, 64, 64))

    def test_an_earlier_mask_becomes_logits_of_the_field(self) -> None:
        earlier = Patch(110, 120, np.ones((20, 30), bool))
        said = asked(Prompt(Box(110, 120, 130, 150)), earlier, Field(100, 100, 256, 256))
        assert said.mask is not None
        assert said.mask.shape == (256, 256)
        np.testing.assert_allclose(said.mask[11:30, 21:50], SURE, atol=0.01)
        assert said.mask[5, 5] == pytest.approx(-SURE)

    @pytest.mark.parametrize(
        "patch", [Patch(0, 0, np.zeros((4, 4), bool)), Patch(400, 400, np.ones((4, 4), bool))]
    )
    def test_an_empty_mask_or_one_elsewhere_counts_as_none(self, patch: Patch) -> None:
        said = asked(Prompt(Box(110, 110, 120, 120)), patch, Field(100, 100, 64, 64))
        assert said.mask is None


class TestPrompt:
    @pytest.mark.parametrize("prompt", [Prompt(), Prompt(None, (Point(3, 3, False),))])
    def test_a_prompt_that_says_nothing_of_where_the_object_is_is_refused(self, prompt: Prompt) -> None:
        with pytest.raises(PromptError, match=r"box, or a click on the object"):
            prompt.check((10, 10))

    @pytest.mark.parametrize("place", [(-1.0, 3.0), (3.0, 9.6), (float("nan"), 2.0), (2.0, float("inf"))])
    def test_a_click_outside_the_plane_is_refused(self, place: tuple[float, float]) -> None:
        with pytest.raises(PromptError, match="Click inside"):
            Prompt(None, (Point(*place),)).check((10, 10))

    def test_a_box_is_clipped_and_clicks_stay(self) -> None:
        checked = Prompt(Box(-5, 2, 6, 30), (Point(3, 3, False),)).check((10, 10))
        assert checked == Prompt(Box(0, 2, 6, 10), (Point(3, 3, False),))
        assert str(checked) == "the box 0,2,6,10, the click 3,3,-"


class TestAnswer:
    def test_the_mask_lies_where_the_click_was(self) -> None:
        found = answer(Clicked(), embedding(Field(100, 100, 256, 256)), Prompt(None, (Point(150, 160),)))  # type: ignore[arg-type]
        assert (found.row, found.col, found.mask.shape) == (140, 150, (20, 20))
        assert found.iou == pytest.approx(0.7)
        assert found.box is None

    def test_nothing_found_gives_an_empty_mask_at_the_click(self) -> None:
        found = answer(Clicked(half=0), embedding(whole_field((512, 512))), Prompt(None, (Point(40, 50),)))  # type: ignore[arg-type]
        assert (found.row, found.col, found.mask.size) == (40, 50, 0)


class TestParts:
    def test_a_lone_click_takes_the_part_that_it_lies_on(self) -> None:
        class Spotted(Clicked):
            def decode_prompt(
                self, features: np.ndarray, prompt: FramePrompt, *, key: str | None = None
            ) -> Answer:
                found = super().decode_prompt(features, prompt, key=key)
                found.logits[0, 200:210, 200:210] = 1
                return found

        region = Field(100, 100, 256, 256)
        for prompt, size in (
            (Prompt(None, (Point(150, 160),)), 400),
            (Prompt(None, (Point(150, 160), Point(305, 305))), 400 + 400),
            (Prompt(Box(120, 120, 320, 320), (Point(150, 160),)), 500),
        ):
            assert answer(Spotted(), embedding(region), prompt).area == size  # type: ignore[arg-type]


class TestCorrecting:
    region = Field(100, 100, 256, 256)  # shown as it is
    square = Patch(150, 150, np.ones((40, 40), bool))

    def test_a_plus_click_beside_a_mask_adds_near_itself_and_changes_nothing_else(self) -> None:
        prompt = Prompt(Box(140, 140, 230, 230), (Point(170, 200),))  # 11 pixels beside the mask
        model: Any = Clicked(half=60)  # an answer that wants far too much
        found = answer(model, embedding(self.region), prompt, self.square).full((512, 512))
        assert found[150:190, 150:190].all()
        rows, cols = np.nonzero(found & ~self.square.within(Box(0, 0, 512, 512)))
        assert np.hypot(rows - 170, cols - 200).max() <= 2 * 11 + 1
        assert found[170, 200]

    def test_a_minus_click_takes_away_near_itself_and_adds_nothing(self) -> None:
        prompt = Prompt(Box(140, 140, 230, 230), (Point(155, 155, False),))
        model: Any = Clicked()  # no plus click: it answers with nothing at all
        found = answer(model, embedding(self.region), prompt, self.square).full((512, 512))
        assert not found[155, 155]
        assert found[175:190, 175:190].all()
        assert not (found & ~self.square.within(Box(0, 0, 512, 512))).any()

    def test_the_decoder_is_shown_the_mask_with_a_disc_added(self) -> None:
        prompt = Prompt(Box(140, 140, 230, 230), (Point(170, 200),))
        said = asked(prompt, self.square, self.region)
        assert said.mask is not None
        assert said.mask[70, 100] == pytest.approx(SURE)  # the click, in the frame
        assert said.mask[70, 130] == pytest.approx(-SURE)

    def test_a_click_that_says_what_the_mask_says_takes_the_whole_answer(self) -> None:
        prompt = Prompt(Box(140, 140, 230, 230), (Point(170, 170),))
        found = answer(Clicked(half=15), embedding(self.region), prompt, self.square)  # type: ignore[arg-type]
        assert (found.row, found.col, found.mask.shape) == (155, 155, (30, 30))

    def test_logits_are_asked_for_where_the_click_counts_and_everywhere_else_they_change_nothing(
        self,
    ) -> None:
        prompt = Prompt(Box(140, 140, 230, 230), (Point(170, 200),))
        said = asked(prompt, self.square, self.region)
        assert said.within is not None
        r0, c0, r1, c1 = said.within  # the click is (70, 100) of the frame, 11 pixels beside the mask
        assert r0 < 70 - 22 < 70 + 22 < r1 < 110
        assert c0 < 100 - 22 < 100 + 22 < c1 < 140
        bounded: Any = Bounded(half=60)
        masks = [
            answer(model, embedding(self.region), prompt, self.square).full((512, 512))
            for model in (bounded, Clicked(half=60))  # type: ignore[arg-type]
        ]
        np.testing.assert_array_equal(*masks)

    def test_a_click_that_corrects_nothing_and_one_without_a_box_ask_for_logits_everywhere(self) -> None:
        inside = Prompt(Box(140, 140, 230, 230), (Point(170, 170),))
        assert asked(inside, self.square, self.region).within is None
        assert asked(Prompt(None, (Point(170, 200),)), self.square, self.region).within is None

    def test_a_minus_click_can_empty_a_small_mask(self) -> None:
        small = Patch(150, 150, np.ones((3, 3), bool))
        prompt = Prompt(Box(140, 140, 230, 230), (Point(151, 151, False),))
        found = answer(Clicked(), embedding(self.region), prompt, small)  # type: ignore[arg-type]
        assert found.mask.size == 0
        assert (found.row, found.col) == (140, 140)

    def test_the_click_reaches_as_far_on_a_reduced_field_as_on_the_plane(self) -> None:
        prompt = Prompt(Box(140, 140, 230, 230), (Point(170, 200),))
        found = answer(Clicked(half=60), embedding(whole_field((512, 512))), prompt, self.square)  # type: ignore[arg-type]
        rows, cols = np.nonzero(found.full((512, 512)) & ~self.square.within(Box(0, 0, 512, 512)))
        assert 15 < np.hypot(rows - 170, cols - 200).max() <= 2 * 11 + 3


def mask_at(row: int, col: int, side: int, region: Field, iou: float) -> Prediction:
    return Prediction(None, row, col, np.ones((side, side), bool), iou, "key", region)


def search(prompt: Prompt, shape: tuple[int, int], policy: FieldPolicy, look: Any) -> Prediction:
    """What is found for a lone click where each field is looked at by `look`."""
    fields = lone_click(prompt, whole_field(shape), shape, policy)
    try:
        field = next(fields)
        while True:
            field = fields.send(look(field))
    except StopIteration as end:
        best: Prediction = end.value[0]
        return best


class TestLoneClick:
    prompt = Prompt(None, (Point(500, 500),))

    def test_it_goes_on_to_the_field_that_fits_what_was_found(self) -> None:
        looked: list[Field] = []

        def look(region: Field) -> Prediction:
            looked.append(region)
            return mask_at(480, 480, 40, region, 0.5 if len(looked) == 1 else 0.9)

        found = search(self.prompt, (1000, 1000), FieldPolicy(), look)
        assert looked[0] == whole_field((1000, 1000))
        assert len(looked) == 2  # the field of a box around 40 pixels is the same again
        assert 64 < looked[1].height < 200
        assert found.field == looked[1]

    def test_the_answer_that_is_trusted_most_is_taken(self) -> None:
        sides = iter([(300, 0.9), (100, 0.4), (30, 0.3), (10, 0.2)])
        found = search(
            self.prompt,
            (1000, 1000),
            FieldPolicy(),
            lambda region: mask_at(490, 490, *_sized(next(sides), region)),
        )
        assert found.iou == pytest.approx(0.9)

    def test_where_nothing_is_found_it_looks_closer_around_the_click(self) -> None:
        looked: list[Field] = []

        def look(region: Field) -> Prediction:
            looked.append(region)
            return Prediction(None, 500, 500, np.zeros((0, 0), bool), 0.1, "key", region)

        search(self.prompt, (1000, 1000), FieldPolicy(), look)
        assert [region.height for region in looked] == sorted((r.height for r in looked), reverse=True)
        assert all(region.box.contains(Box(499, 499, 501, 501)) for region in looked)

    def test_the_box_around_what_was_found_holds_the_clicks(self) -> None:
        prompt = Prompt(None, (Point(10, 10), Point(90, 20), Point(0, 99, False)))
        box = click_box(prompt, mask_at(5, 5, 20, whole_field((100, 100)), 0.5), (100, 100))
        assert box.r0 < 5 < 91 < box.r1
        assert box.c1 < 40


def _sized(what: tuple[int, float], region: Field) -> tuple[int, Field, float]:
    return what[0], region, what[1]


class TestSegmenter:
    def test_clicks_are_refused_where_the_model_has_not_learned_them(self) -> None:
        class BoxesOnly(Clicked):
            pass

        model: Any = BoxesOnly(prompts=frozenset({"box"}))
        with pytest.raises(PromptError, match="learned boxes only"):
            check_learned(model)
        with pytest.raises(PromptError, match="learned boxes only"):
            Segmenter(model).predict_prompts(
                Plane.from_array(np.zeros((50, 50), np.uint8)), [Prompt(None, (Point(3, 3),))]
            )
