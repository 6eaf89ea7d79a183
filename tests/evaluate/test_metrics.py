from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_medsam.evaluate.metrics import box_from_mask, dice_coefficient, normalized_surface_distance
from napari_medsam.evaluate.surface import surface_elements
from napari_medsam.geometry import bbox_of


def _wavy_masks(ndim: int) -> tuple[np.ndarray, np.ndarray]:
    grid = np.stack(np.indices((17, 19, 13)[:ndim]))
    wave = np.sin(grid[0] * 0.9) + np.cos(grid[1] * 0.7 + 1) + (np.sin(grid[2] * 1.1) if ndim == 3 else 0)
    return wave > 0.3, np.roll(wave, 1, axis=0) > 0.6


def _square(row: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((30, 30), bool)
    mask[row : row + side, 10 : 10 + side] = True
    return mask


# Values of the surface-distance package (google-deepmind, version 0.1), rounded to ten digits.
@pytest.mark.parametrize(
    ("ndim", "spacing", "tolerance", "expected"),
    [
        (2, (1, 1), 0, 0.6075971241),
        (2, (1, 1), 1, 0.9408246008),
        (2, (0.7, 1.9), 1, 0.9317988338),
        (2, (0.7, 1.9), 1.5, 0.9925659432),
        (3, (1, 1, 1), 0, 0.8324328529),
        (3, (3.0, 0.8, 1.1), 0, 0.8394035525),
        (3, (3.0, 0.8, 1.1), 1, 0.9445568162),
    ],
)
def test_surface_distance_agrees_with_its_source(
    ndim: int, spacing: tuple[float, ...], tolerance: float, expected: float
) -> None:
    prediction, reference = _wavy_masks(ndim)
    got = normalized_surface_distance(prediction, reference, spacing, tolerance)
    assert got == pytest.approx(expected, abs=1e-9)


def test_a_shift_is_within_its_own_tolerance_only() -> None:
    a, b = _square(5), _square(8)
    assert normalized_surface_distance(a, b, (0.5, 1), 1.5) == 1
    assert normalized_surface_distance(a, b, (0.5, 1), 1.49) < 1
    assert dice_coefficient(a, b) == pytest.approx(0.7)


def test_a_square_has_the_perimeter_of_a_square_with_cut_corners() -> None:
    at, sizes = surface_elements(_square(5), (1, 1))
    assert sizes.sum() == pytest.approx(4 * 9 + 4 * np.sqrt(0.5))
    assert (sizes[~at] == 0).all()
    assert (sizes[at] > 0).all()


def test_a_box_has_the_area_of_a_box_with_cut_edges_and_corners() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[1:11, 1:11, 1:11] = True
    at, sizes = surface_elements(mask, (1, 1, 1))
    flat, edges, corners = 6 * 9 * 9, 12 * 9 * np.sqrt(0.5), 8 * np.sqrt(3) / 8
    assert sizes[at].sum() == pytest.approx(flat + edges + corners)
    _, stretched = surface_elements(mask, (2, 1, 1))
    assert stretched[1, 5, 5] == 1
    assert stretched[5, 1, 5] == 2


@pytest.mark.parametrize("ndim", [2, 3])
def test_empty_masks(ndim: int) -> None:
    empty, full = np.zeros((4,) * ndim, bool), np.ones((4,) * ndim, bool)
    spacing = (1.0,) * ndim
    for first, second, expected in ((empty, empty, 1.0), (empty, full, 0.0), (full, empty, 0.0)):
        assert dice_coefficient(first, second) == expected
        assert normalized_surface_distance(first, second, spacing, 1) == expected
    assert normalized_surface_distance(full, full, spacing, 0) == 1
    assert normalized_surface_distance(empty, full, spacing, np.inf) == 0


@given(st.data())
def test_both_metrics_are_symmetric_and_within_bounds(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, max_side=6))
    a, b = (data.draw(arrays(bool, shape)) for _ in range(2))
    spacing = data.draw(st.tuples(*[st.floats(0.1, 5)] * len(shape)))
    tolerance = data.draw(st.floats(0, 3))
    dice, nsd = dice_coefficient(a, b), normalized_surface_distance(a, b, spacing, tolerance)
    assert 0 <= dice <= 1
    assert 0 <= nsd <= 1 + 1e-12
    assert dice == dice_coefficient(b, a)
    assert nsd == pytest.approx(normalized_surface_distance(b, a, spacing, tolerance))
    assert dice_coefficient(a, a) == 1
    assert normalized_surface_distance(a, a, spacing, 0) == 1


def test_labels_and_bytes_count_as_masks() -> None:
    assert dice_coefficient(_square(5).astype(np.uint8) * 255, _square(5).astype(float)) == 1


@pytest.mark.parametrize(
    ("shapes", "spacing", "tolerance"),
    [
        (((4, 4), (4, 5)), (1, 1), 1),
        (((4, 4), (4, 4)), (1, 1, 1), 1),
        (((4,), (4,)), (1,), 1),
        (((4, 4), (4, 4)), (1, 0), 1),
        (((4, 4), (4, 4)), (1, np.nan), 1),
        (((4, 4), (4, 4)), (1, 1), -1),
    ],
)
def test_surface_distance_refuses_what_does_not_fit(shapes: Any, spacing: Any, tolerance: float) -> None:
    a, b = (np.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"shapes|axes|spacing"):
        normalized_surface_distance(a, b, spacing, tolerance)


def test_bbox_is_half_open() -> None:
    assert bbox_of(_square(5)) == (5, 10, 15, 20)
    assert bbox_of(np.zeros((3, 3))) is None
    assert bbox_of([[0, 0], [0, 7]]) == (1, 1, 2, 2)
    with pytest.raises(ValueError, match="2D"):
        bbox_of(np.ones((2, 2, 2)))


def test_boxes_grow_a_little_and_replay() -> None:
    mask = _square(5)
    boxes = np.array([box_from_mask(mask, np.random.default_rng(seed)) for seed in range(50)])
    assert (boxes[:, :2] <= [5, 10]).all()
    assert (boxes[:, :2] >= [4.5, 9.5]).all()
    assert (boxes[:, 2:] >= [15, 20]).all()
    assert (boxes[:, 2:] <= [15.5, 20.5]).all()
    assert (np.ptp(boxes, axis=0) > 0.3).all()
    np.testing.assert_array_equal(boxes[7], box_from_mask(mask, np.random.default_rng(7)))
    np.testing.assert_array_equal(
        box_from_mask(np.ones((9, 8)), np.random.default_rng(0), max_growth=2), [0, 0, 9, 8]
    )
    with pytest.raises(ValueError, match="empty"):
        box_from_mask(np.zeros((3, 3)), np.random.default_rng(0))
