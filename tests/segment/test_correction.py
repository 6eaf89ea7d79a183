"""What a click on a mask means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medsam.segment.correction import DISC, REACH, Correction, correction_of, settled, suggested


def square(r0: int, c0: int, r1: int, c1: int) -> np.ndarray:
    mask = np.zeros((40, 40), bool)
    mask[r0:r1, c0:c1] = True
    return mask


MASK = square(10, 10, 30, 20)


def test_the_depth_is_the_distance_to_the_edge_of_the_mask() -> None:
    plus = correction_of(MASK, 20, 24, True)
    assert plus == Correction(20, 24, True, 5.0)
    minus = correction_of(MASK, 20, 12, False)
    assert minus == Correction(20, 12, False, 3.0)


@pytest.mark.parametrize(
    ("mask", "positive"),
    [(MASK, True), (np.zeros((40, 40), bool), True), (np.ones((40, 40), bool), False)],
    ids=["the mask says so", "there is no mask", "there is no edge"],
)
def test_where_there_is_nothing_to_correct_there_is_no_correction(mask: np.ndarray, positive: bool) -> None:
    assert correction_of(mask, 20, 15, positive) is None
    assert suggested(mask, None) is mask
    assert settled(mask, ~mask, None).tolist() == (~mask).tolist()


def test_a_click_outside_the_raster_counts_as_one_on_its_edge() -> None:
    found = correction_of(MASK, 20, 60, True)
    assert found is not None
    assert found.depth == 20.0


def test_a_disc_is_added_or_taken_away() -> None:
    plus = correction_of(MASK, 20, 24, True)
    added = suggested(MASK, plus) & ~MASK
    rows, cols = np.nonzero(added)
    assert added[20, 24]
    assert np.hypot(rows - 20, cols - 24).max() <= DISC * 5
    minus = correction_of(MASK, 20, 12, False)
    assert not suggested(MASK, minus)[20, 12]
    assert suggested(MASK, minus)[29, 19]


@given(st.integers(0, 39), st.integers(0, 39), st.booleans(), st.integers(0, 2**20))
def test_far_from_the_click_the_mask_stays(row: int, col: int, positive: bool, seed: int) -> None:
    answer = np.random.default_rng(seed).random((40, 40)) > 0.5
    found = correction_of(MASK, row, col, positive)
    if found is None:
        return
    rows, cols = np.mgrid[:40, :40]
    distance = np.hypot(rows - row, cols - col) - REACH * found.depth
    far, near = distance > 1e-6, distance < -1e-6
    result = settled(MASK, answer, found)
    assert np.array_equal(result[far], MASK[far])
    assert np.array_equal(result[near], answer[near])
    assert np.array_equal(result[5:, 7:], settled(MASK[5:, 7:], answer[5:, 7:], found, (5, 7)))
