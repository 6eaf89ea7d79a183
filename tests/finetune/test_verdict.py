"""Adopt, keep or unsure; what the tables and pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_fakes import MemoryCache, PatchEncoder, disc_case, tiny_model
from PIL import Image

from napari_medsam.curation.case import Case
from napari_medsam.evaluate.verdict import Scores
from napari_medsam.finetune import verdict as verdict_module
from napari_medsam.finetune.pictures import CURRENT, NEW, SIDE, TRUTH, draw_worst, picture
from napari_medsam.finetune.verdict import (
    LEAST_OBJECTS,
    Candidate,
    Judged,
    judge,
    objects_to_judge,
    verdict_of,
    worst_first,
)
from napari_medsam.geometry import Box
from napari_medsam.image.field import whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.prediction import Prediction

NAMES = {"new": "mine", "current": "old", "released": "lite"}
PLANE = Plane.from_array(np.full((90, 120, 3), 40, np.uint8), rgb=True, name="plane")


def predicted(mask: np.ndarray) -> Prediction:
    return Prediction(Box(0, 0, 1, 1), 0, 0, mask, 0.5, "key", whole_field(PLANE.shape))


def judged(
    new: float, current: float, case: str = "case", group: str | None = None, class_name: str = "cell",
    box: Sequence[float] = (20, 30, 60, 80), masks: dict[str, np.ndarray] | None = None,
) -> Judged:  # fmt: skip
    """One object with made-up scores; NSD is half the DSC."""
    r0, c0, r1, c1 = (int(edge) for edge in box)
    truth = np.zeros(PLANE.shape, bool)
    truth[r0:r1, c0:c1] = True
    shown = {"new": truth, "current": truth, **(masks or {})}
    scores = {"new": new, "current": current, "released": 0.5}
    return Judged(
        case, group or case, PLANE, 1, class_name, np.array(box, float), truth[r0:r1, c0:c1], (r0, c0),
        {role: Scores(dsc, dsc / 2) for role, dsc in scores.items()},
        {role: predicted(mask) for role, mask in shown.items()},
    )  # fmt: skip


def spread(gains: Sequence[float], each: int = 3, **options: str) -> list[Judged]:
    """Objects in a case for each gain over a current decoder of 0.7."""
    return [
        judged(0.7 + gain, 0.7, f"case {n}", **options) for n, gain in enumerate(gains) for _ in range(each)
    ]


def test_better_in_every_case_is_adopted() -> None:
    verdict = verdict_of(spread([0.05, 0.1, 0.08, 0.02, 0.12]), NAMES, "group")
    assert verdict.decision == "adopt"
    assert verdict.reason.startswith("Better than old beyond doubt: DSC +0.074 (+0.")
    assert verdict.difference.dsc == pytest.approx(0.074)
    assert 0 < verdict.difference.low < 0.074 < verdict.difference.high < 0.12
    assert (verdict.objects, verdict.cases, verdict.by) == (15, 5, "group")
    assert {role: getattr(verdict, role) for role in NAMES} == NAMES
    assert vars(verdict.mean["new"]) == pytest.approx({"dsc": 0.774, "nsd": 0.387})


def test_worse_equal_and_doubtful_are_not() -> None:
    worse = verdict_of(spread([-0.05, -0.1, -0.08, -0.02]), NAMES, "group")
    assert (worse.decision, worse.reason[:14]) == ("keep", "Worse than old")
    equal = verdict_of(spread([0.0] * 5), NAMES, "group")
    assert (equal.decision, equal.difference.low) == ("keep", 0)
    doubtful = verdict_of(spread([0.2, -0.1, 0.15, -0.1, 0.05]), NAMES, "group")
    assert doubtful.decision == "keep"
    assert doubtful.reason.startswith("Not better than old beyond doubt")
    assert doubtful.difference.low < 0 < doubtful.difference.dsc


@pytest.mark.parametrize("count", range(LEAST_OBJECTS))
def test_few_objects_say_nothing(count: int) -> None:
    verdict = verdict_of(spread([0.3] * count, each=1), NAMES, "group")
    assert verdict.decision == "unsure"
    assert f"{count} held-out objects" in verdict.reason
    assert verdict.difference is None
    assert len(verdict.table) == count
    assert bool(verdict.mean) == (count > 0)


def test_the_interval_is_over_groups_not_objects() -> None:
    """One group is much better, three a little worse: two hundred objects of it are one piece of evidence."""
    lucky = [judged(0.9, 0.7, f"case {n}", "lucky") for n in range(200)]
    others = [judged(0.69, 0.7, f"{group}{n}", group) for group in "abc" for n in range(10)]
    verdict = verdict_of([*lucky, *others], NAMES, "group")
    assert (verdict.decision, verdict.difference.over) == ("keep", "groups")
    assert verdict.difference.dsc > 0.15
    assert verdict.difference.low < 0
    apart = [replace(one, group=f"{one.group}{n}") for n, one in enumerate([*lucky, *others])]
    assert verdict_of(apart, NAMES, "case").decision == "adopt"


def test_with_too_few_groups_cases_and_with_too_few_of_them_objects_are_drawn() -> None:
    few_groups = verdict_of(spread([0.1] * 4, group="one"), NAMES, "case")
    assert few_groups.difference.over == "cases"
    assert verdict_of(spread([0.1] * 3), NAMES, "group").difference.over == "objects"


def test_a_verdict_is_the_same_for_a_seed() -> None:
    found = spread([0.05, -0.02, 0.08, 0.02, 0.12])
    assert verdict_of(found, NAMES, "group", 4) == verdict_of(found, NAMES, "group", 4)
    assert verdict_of(found, NAMES, "group", 4).difference != verdict_of(found, NAMES, "group", 5).difference


def test_tables_by_class_and_by_case() -> None:
    found = [
        judged(0.9, 0.7, "good", class_name="cell"), judged(0.3, 0.7, "bad", class_name="vessel"),
        judged(0.5, 0.7, "bad", class_name="cell"), judged(0.6, 0.7, "fair", class_name="cell"),
        judged(0.6, 0.7, "fair", class_name="vessel"),
    ]  # fmt: skip
    verdict = verdict_of(found, NAMES, "group")
    assert [(row.case, row.objects) for row in verdict.table] == [
        ("bad", 2),
        ("fair", 2),
        ("good", 1),
    ]
    assert vars(verdict.table[0].new) == pytest.approx({"dsc": 0.4, "nsd": 0.2})
    assert [(row.class_, row.objects) for row in verdict.classes] == [("cell", 3), ("vessel", 2)]
    assert verdict.classes[1].new.dsc == pytest.approx(0.45)


def test_worst_first_goes_round_the_cases() -> None:
    found = [
        judged(dsc, 0.7, case) for case, dsc in [("a", 0.1), ("a", 0.2), ("b", 0.5), ("a", 0.3), ("c", 0.4)]
    ]
    ordered = [(one.case, one.scores["new"].dsc) for one in worst_first(found)]
    assert ordered == [("a", 0.1), ("c", 0.4), ("b", 0.5), ("a", 0.2), ("a", 0.3)]


# judging


def candidates(cache_encoder: PatchEncoder) -> dict[str, Candidate]:
    first = tiny_model(cache_encoder)
    other = first.with_decoder(tiny_model(cache_encoder, seed=1).decoder_state())
    return {"new": Candidate("mine", other), "current": Candidate("old", first)}


def judged_cases() -> list[tuple[str, Case]]:
    volume = np.zeros((3, 64, 64), np.int32)
    volume[:2, 5:30, 5:30] = 1
    flat = disc_case(0, (64, 128), count=2, group="movie")
    deep = Case(np.repeat(flat.imgs[None, :, :64, 0], 3, axis=0), volume, (2.0, 1.0, 1.0), flat.objects[:1])
    return [("flat", flat), ("deep", deep), ("empty", replace(flat, gts=np.zeros_like(flat.gts), objects=()))]


def test_every_object_is_judged_by_all_from_one_box_and_again_the_same(encoder: PatchEncoder) -> None:
    cases = judged_cases()
    both = candidates(encoder)
    found = list(judge(both, cases, MemoryCache(), seed=1))  # type: ignore[arg-type]
    assert [(one.case, one.label, one.group) for one in found] == [
        ("flat", 1, "movie"), ("flat", 2, "movie"), ("deep", 1, "deep"), ("deep", 1, "deep"),
    ]  # fmt: skip
    assert objects_to_judge(cases) == 4
    assert encoder.calls == 3  # the slices are alike, and both decoders share the encoder
    for one in found:
        r0, c0, r1, c1 = one.box
        top, left = one.origin
        assert r0 <= top < top + one.truth.shape[0] <= r1
        assert c0 <= left < left + one.truth.shape[1] <= c1
        assert one.truth.any(axis=1).all()
        assert set(one.scores) == {"new", "current"}
        assert all(0 <= score <= 1 for scores in one.scores.values() for score in vars(scores).values())
        assert one.predictions["new"].box == one.predictions["current"].box
    again = list(judge(both, cases, None, seed=1))
    assert [one.scores for one in again] == [one.scores for one in found]
    moved = list(judge(both, cases[:1], None, seed=2))
    assert not np.array_equal(moved[0].box, found[0].box)


def test_the_tolerance_of_the_nsd_is_in_millimetres_where_the_spacing_is(encoder: PatchEncoder) -> None:
    new = {"new": candidates(encoder)["new"]}
    fine = replace(disc_case(0), spacing=(0.05, 0.05))
    (pixels,) = judge(new, [("case", fine)], None)
    (millimetres,) = judge(new, [("case", replace(fine, unit="mm"))], None)
    assert millimetres.scores["new"].dsc == pixels.scores["new"].dsc
    assert pixels.scores["new"].nsd < 1  # within two pixels, that is 0.1
    assert millimetres.scores["new"].nsd == 1  # within 2 mm, that is 40 pixels
    assert [(one.number, one.label) for one in judge(new, judged_cases()[1:2], None)] == [(0, 1), (1, 1)]


def test_of_a_crowd_some_are_drawn(encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_module, "MOST_OBJECTS_A_CASE", 5)
    gts = np.zeros((64, 64), np.int32)
    for label in range(1, 50):
        row, col = divmod(label - 1, 7)
        gts[9 * row + 1 : 9 * row + 7, 9 * col + 1 : 9 * col + 7] = label
    case = replace(disc_case(0), gts=gts, objects=())
    new = {"new": candidates(encoder)["new"]}
    drawn = [one.label for one in judge(new, [("crowd", case)], None)]
    assert len(drawn) == 5 == objects_to_judge([("crowd", case)])
    assert len(list(judge(new, [("crowd", case)], None, every=True))) == 49
    assert drawn == sorted(set(drawn))
    assert drawn == [one.label for one in judge(new, [("crowd", case)], None)]
    assert drawn != [one.label for one in judge(new, [("crowd", case)], None, seed=1)]


def test_judging_stops_between_objects(encoder: PatchEncoder) -> None:
    found: list[Judged] = []
    for one in judge(candidates(encoder), judged_cases(), None, stopping=lambda: len(found) == 2):
        found.append(one)
    assert len(found) == 2


# pictures


def test_pictures_are_written_worst_first(tmp_path: Path) -> None:
    found = [judged(0.1 * n, 0.7, f"case {n}", box=(n, n, n + 30, n + 60)) for n in range(9)]
    names = draw_worst(found, tmp_path)
    assert names == [f"worst_{n}.png" for n in range(1, 7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    first = np.asarray(Image.open(tmp_path / names[0]))
    np.testing.assert_array_equal(first, picture(found[0]))
    assert draw_worst([], tmp_path) == []
    assert len(draw_worst(found[:2], tmp_path)) == 2


def colours(drawn: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(drawn.reshape(-1, 3), axis=0).tolist()}


def test_a_picture_shows_three_contours_where_they_differ() -> None:
    new, current = np.zeros(PLANE.shape, bool), np.zeros(PLANE.shape, bool)
    new[25:50, 40:70] = True
    current[15:65, 25:85] = True
    drawn = picture(judged(0.5, 0.5, masks={"new": new, "current": current}))
    assert {TRUTH, CURRENT, NEW} < colours(drawn)
    assert (drawn.dtype, max(drawn.shape)) == (np.uint8, SIDE)
    other = picture(judged(0.5, 0.5, masks={"new": current, "current": new}))
    assert not np.array_equal(drawn, other)
    nothing = picture(judged(0.0, 0.5, masks={"new": np.zeros(PLANE.shape, bool), "current": current}))
    assert NEW not in colours(nothing)


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 30), (70, 100, 90, 120), (0, 0, 90, 119), (88, 0, 90, 120), (44, 60, 45, 61)]
)
def test_boxes_at_the_edge_are_drawn_too(box: tuple[int, int, int, int]) -> None:
    drawn = picture(judged(0.5, 0.5, box=box))
    assert NEW in colours(drawn)
    assert max(drawn.shape[:2]) == SIDE
    assert min(drawn.shape[:2]) > 0
