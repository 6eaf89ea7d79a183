"""Objects that share the pixels of a plane: what drawing one anew does to the labels, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medsam.document.compose import note_stroke, redraw, redraw_box, still_corrected
from napari_medsam.document.objects import Part, PlaneKey
from napari_medsam.document.overlap import Policy
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import whole_field
from napari_medsam.segment.prediction import Prediction

SHAPE = (12, 14)
WHOLE = Box(0, 0, *SHAPE)
KEY = PlaneKey((None, None), (0, 1))
POLICIES: tuple[Policy, ...] = ("later", "never", "corrected")


def record(number: int, patch: Patch | None, *, turn: int = 0, corrected: bool = False) -> Part:
    """An object with a prediction in a patch of the plane."""
    prediction = None
    if patch is not None:
        field = whole_field(SHAPE)
        prediction = Prediction(Box(0, 0, *SHAPE), patch.row, patch.col, patch.mask, 0.9, "key", field)
    before = Patch(0, 0, np.zeros(SHAPE, bool)) if corrected else None
    extent = None if patch is None else patch.box
    return Part(number, KEY, prediction=prediction, before=before, extent=extent, turn=turn)


@st.composite
def patches(draw: st.DrawFn) -> Patch:
    row, col = draw(st.integers(0, SHAPE[0] - 1)), draw(st.integers(0, SHAPE[1] - 1))
    height, width = draw(st.integers(1, SHAPE[0] - row)), draw(st.integers(1, SHAPE[1] - col))
    bits = draw(st.integers(0, 2 ** (height * width) - 1))
    mask = np.array([bits >> n & 1 for n in range(height * width)], bool).reshape(height, width)
    return Patch(row, col, mask)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, list[Part]]:
    """Two to four objects drawn one after the other, some corrected, and some paint that belongs to nobody."""
    policy = draw(st.sampled_from(POLICIES))
    labels = np.zeros(SHAPE, np.int32)
    records: list[Part] = []
    for number in range(1, draw(st.integers(2, 4)) + 1):
        new = record(number, draw(patches()), turn=number, corrected=draw(st.booleans()))
        labels = redraw(labels, WHOLE, new, records, policy).astype(np.int32)
        records.append(new)
    labels[draw(patches()).within(WHOLE)] = draw(st.sampled_from([0, 99]))
    return labels, records


class TestRedraw:
    @given(scene=scenes(), patch=patches(), policy=st.sampled_from(POLICIES))
    def test_only_the_object_s_pixels_and_those_it_gives_back_change(
        self, scene: tuple[np.ndarray, list[Part]], patch: Patch, policy: Policy
    ) -> None:
        labels, records = scene
        moved = replace(record(1, patch, turn=9), extent=records[0].extent)
        drawn = redraw(labels, WHOLE, moved, records, policy)
        changed = drawn != labels
        assert not (changed & ~(labels == 1) & ~patch.within(WHOLE)).any()
        # Outside its new mask, what it left is background or the prediction of another object that is not corrected.
        left = (labels == 1) & (drawn != 1)
        for label in np.unique(drawn[left]):
            if label:
                other = records[label - 1]
                assert not other.corrected
                assert other.patch is not None
                assert other.patch.within(WHOLE)[left & (drawn == label)].all()

    @given(scene=scenes(), patch=patches())
    def test_later_takes_its_whole_mask(self, scene: tuple[np.ndarray, list[Part]], patch: Patch) -> None:
        labels, records = scene
        drawn = redraw(labels, WHOLE, record(1, patch, turn=9), records, "later")
        assert np.array_equal(drawn == 1, patch.within(WHOLE))

    @given(scene=scenes(), patch=patches())
    def test_never_takes_nothing_from_others(
        self, scene: tuple[np.ndarray, list[Part]], patch: Patch
    ) -> None:
        labels, records = scene
        drawn = redraw(labels, WHOLE, record(1, patch, turn=9), records, "never")
        for label in np.unique(labels):
            if label not in (0, 1):
                assert (drawn[labels == label] == label).all()

    @given(scene=scenes(), patch=patches())
    def test_corrected_masks_and_paint_of_nobody_are_kept(
        self, scene: tuple[np.ndarray, list[Part]], patch: Patch
    ) -> None:
        labels, records = scene
        drawn = redraw(labels, WHOLE, record(1, patch, turn=9), records, "corrected")
        for label in np.unique(labels):
            kept = label == 99 or (label > 1 and records[label - 1].corrected)
            if kept:
                assert (drawn[labels == label] == label).all()
        free = patch.within(WHOLE) & ~np.isin(
            labels, [99, *(entry.object_id for entry in records[1:] if entry.corrected)]
        )
        assert (drawn[free] == 1).all()

    @given(scene=scenes(), policy=st.sampled_from(POLICIES))
    def test_erasing_leaves_none_of_it_and_touches_no_other_pixel(
        self, scene: tuple[np.ndarray, list[Part]], policy: Policy
    ) -> None:
        labels, records = scene
        drawn = redraw(labels, WHOLE, records[0], records, policy, erase=True)
        assert not (drawn == 1).any()
        assert np.array_equal(drawn[labels != 1], labels[labels != 1])

    @given(patch=patches(), policy=st.sampled_from(POLICIES))
    def test_erased_and_drawn_again_where_nobody_overlaps_is_the_same(
        self, patch: Patch, policy: Policy
    ) -> None:
        own = record(1, patch, turn=1)
        other = record(2, None)
        labels = np.where(patch.within(WHOLE), 1, 2).astype(np.int32)
        erased = redraw(labels, WHOLE, own, [own, other], policy, erase=True)
        assert np.array_equal(redraw(erased, WHOLE, own, [own, other], policy), labels)

    @given(scene=scenes(), policy=st.sampled_from(POLICIES))
    def test_twice_is_once(self, scene: tuple[np.ndarray, list[Part]], policy: Policy) -> None:
        labels, records = scene
        once = redraw(labels, WHOLE, records[0], records, policy)
        assert np.array_equal(redraw(once, WHOLE, records[0], records, policy), once)

    @given(scene=scenes(), patch=patches(), policy=st.sampled_from(POLICIES))
    def test_the_bounds_it_asks_for_are_enough(
        self, scene: tuple[np.ndarray, list[Part]], patch: Patch, policy: Policy
    ) -> None:
        labels, records = scene
        moved = replace(record(1, patch, turn=9), extent=records[0].extent)
        bounds = redraw_box(moved)
        assert bounds is not None
        r0, c0, r1, c1 = bounds
        part = labels.copy()
        part[r0:r1, c0:c1] = redraw(labels[r0:r1, c0:c1], bounds, moved, records, policy)
        assert np.array_equal(part, redraw(labels, WHOLE, moved, records, policy))

    def test_the_latest_of_those_hidden_comes_back(self) -> None:
        full = Patch(0, 0, np.ones(SHAPE, bool))
        first, second, top = (record(n, full, turn=n) for n in (1, 2, 3))
        drawn = redraw(np.full(SHAPE, 3), WHOLE, top, [first, second, top], "later", erase=True)
        assert (drawn == 2).all()

    def test_the_input_is_left_alone_and_small_types_hold(self) -> None:
        labels = np.zeros(SHAPE, np.uint8)
        drawn = redraw(labels, WHOLE, record(700, Patch(1, 1, np.ones((2, 2), bool))), [], "later")
        assert labels.max() == 0
        assert drawn.max() == 700

    def test_nothing_predicted_and_nothing_drawn_needs_no_bounds(self) -> None:
        assert redraw_box(record(1, None)) is None
        empty = replace(record(1, Patch(3, 3, np.zeros((0, 0), bool))), extent=None)
        assert redraw_box(empty) is None


class TestStrokes:
    @given(patch=patches(), stroke=patches(), label=st.sampled_from([0, 1, 2]))
    def test_a_stroke_is_noted_exactly_when_it_changed_the_object(
        self, patch: Patch, stroke: Patch, label: int
    ) -> None:
        earlier = patch.within(WHOLE).astype(np.int64)
        now = np.where(stroke.within(WHOLE), label, earlier)
        before = note_stroke(record(1, patch), now, earlier, WHOLE)
        if np.array_equal(now == 1, earlier == 1):
            assert before is None
        else:
            assert before is not None
            assert np.array_equal(before.within(WHOLE), earlier == 1)

    @given(patch=patches(), stroke=patches())
    def test_it_stays_a_correction_until_the_pixels_are_back(self, patch: Patch, stroke: Patch) -> None:
        earlier = patch.within(WHOLE).astype(np.int64)
        now = np.where(stroke.within(WHOLE), 1, earlier)
        before = note_stroke(record(1, patch), now, earlier, WHOLE)
        touched = replace(record(1, patch), before=before, extent=WHOLE)

        def read(labels: np.ndarray, bounds: Box) -> np.ndarray:
            r0, c0, r1, c1 = bounds
            return labels[r0:r1, c0:c1]

        assert still_corrected(touched, lambda bounds: read(now, bounds)) == (before is not None)
        assert not still_corrected(touched, lambda bounds: read(earlier, bounds))


class TestPatch:
    @given(patch=patches(), bounds=st.builds(Box, *[st.integers(-5, 20)] * 4))
    def test_within_agrees_with_the_whole_plane(self, patch: Patch, bounds: Box) -> None:
        r0, c0, r1, c1 = bounds
        found = patch.within(bounds)
        assert found.shape == (max(r1 - r0, 0), max(c1 - c0, 0))
        if found.size:
            padded = np.pad(patch.within(WHOLE), 32)
            assert np.array_equal(found, padded[r0 + 32 : r1 + 32, c0 + 32 : c1 + 32])

    @settings(max_examples=5)
    @given(patch=patches())
    def test_bounds_hold_it(self, patch: Patch) -> None:
        assert patch.within(patch.box).sum() == patch.mask.sum()


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_prediction_only_gives_back(policy: Policy) -> None:
    labels = np.ones(SHAPE, np.int32)
    nothing = replace(record(1, Patch(0, 0, np.zeros((0, 0), bool))), extent=WHOLE)
    assert not redraw(labels, WHOLE, nothing, [], policy).any()
