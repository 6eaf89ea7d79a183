from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import regionprops

from napari_medsam.evaluate.agreement import agreement
from napari_medsam.evaluate.measure import diameters, measure


def _ellipse(rows: float, cols: float, angle: float = 0.0, side: int = 200) -> np.ndarray:
    """Half-axes in pixels; turned by an angle in degrees."""
    row, col = np.mgrid[:side, :side] - (side - 1) / 2
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return ((row * cos + col * sin) / rows) ** 2 + ((col * cos - row * sin) / cols) ** 2 <= 1


def _contour(mask: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Every point half-way between a pixel inside and a neighbour outside."""
    points = []
    for row, col in np.argwhere(mask):
        for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            other = (row + step[0], col + step[1])
            out = not (0 <= other[0] < mask.shape[0] and 0 <= other[1] < mask.shape[1]) or not mask[other]
            if out:
                points.append((row + step[0] / 2, col + step[1] / 2))
    return np.array(points) * spacing


@pytest.mark.parametrize("angle", [0, 30, 45, 77])
def test_an_ellipse_has_its_own_axes(angle: float) -> None:
    found = diameters(_ellipse(80, 35, angle), (1, 1))
    assert found.longest == pytest.approx(160, abs=1.2)
    assert found.perpendicular == pytest.approx(70, abs=1.5)


def test_spacing_stretches_what_is_measured() -> None:
    circle = _ellipse(40, 40)
    (lesion,) = measure(circle, (2.0, 0.5)).lesions
    assert lesion.longest == pytest.approx(160, abs=3)
    assert lesion.perpendicular == pytest.approx(40, abs=1)
    assert lesion.area == circle.sum()
    (in_cm,) = measure(circle, (0.2, 0.05), unit="cm").lesions
    assert in_cm.longest == pytest.approx(lesion.longest)
    assert in_cm.area == pytest.approx(lesion.area)


def test_a_rectangle_is_as_long_as_its_diagonal_between_edges() -> None:
    mask = np.zeros((20, 40), bool)
    mask[5:9, 10:30] = True
    found = diameters(mask, (1, 1))
    assert found.longest == pytest.approx(np.hypot(3, 20))
    assert diameters(np.ones((1, 1)), (3, 2)).longest == 3
    assert diameters(np.ones((1, 1)), (3, 2)).perpendicular == 2
    assert diameters(np.ones((1, 7)), (1, 1)).longest == 7
    assert diameters(np.ones((1, 7)), (1, 1)).perpendicular == 1
    assert diameters(np.zeros((4, 4)), (1, 1)).longest == 0


def test_a_ball_and_its_largest_plane() -> None:
    z, row, col = np.mgrid[:13, :41, :41]
    ball = np.hypot(np.hypot((z - 6) * 3, row - 20), col - 20) <= 16
    burden = measure(ball, (3.0, 1.0, 1.0))
    (lesion,) = burden.lesions
    assert lesion.plane == 6
    assert lesion.longest == pytest.approx(33, abs=1)
    assert burden.volume == ball.sum() * 3.0
    assert burden.volume == pytest.approx(4 / 3 * math.pi * 16**3, rel=0.03)
    assert lesion.area == ball[6].sum()
    turned = measure(np.moveaxis(ball, 0, 2), (1.0, 1.0, 3.0), axis=2)
    assert turned == burden
    assert measure(ball, (3.0, 1.0, 1.0), axis=1).lesions[0].longest == pytest.approx(36, abs=4)


def test_lesions_add_up_to_the_burden_of_a_case() -> None:
    labels = np.zeros((4, 30, 30), np.uint16)
    labels[0, 2:6, 3:9] = 2
    labels[1:3, 10:20, 10:12] = 5
    burden = measure(labels, (5.0, 1.0, 1.0))
    assert [lesion.label for lesion in burden.lesions] == [2, 5]
    assert [lesion.volume for lesion in burden.lesions] == [24 * 5, 40 * 5]
    assert burden.volume == 320
    assert burden.area == 24 + 20
    assert burden.longest == pytest.approx(np.hypot(3, 6) + np.hypot(10, 1))
    assert [lesion.plane for lesion in burden.lesions] == [0, 1]


def test_no_lesion_no_burden_and_a_plane_has_no_volume() -> None:
    empty = measure(np.zeros((3, 4, 4), int), (1, 1, 1))
    assert (empty.lesions, empty.volume, empty.area, empty.longest) == ((), 0.0, 0.0, 0.0)
    pixels = measure(np.ones((2, 2, 2), int), (1, 1, 1), unit="pixel")
    assert (pixels.volume, pixels.unit) == (8.0, "pixel")
    plane = measure(np.ones((2, 2), bool), (1, 1))
    assert (plane.volume, plane.area) == (None, 4.0)


@settings(deadline=None)
@given(st.data())
def test_diameters_are_those_of_the_contour(data: st.DataObject) -> None:
    mask = data.draw(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=8)))
    assume(mask.any())
    spacing = data.draw(st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
    points = _contour(mask, spacing)
    found = diameters(mask, spacing)
    every = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert found.longest == pytest.approx(every.max())
    assert 0 < found.perpendicular <= found.longest + 1e-9


def test_the_perpendicular_is_the_widest_chord_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = np.zeros((40, 40), bool)
        mask[tuple(rng.integers(4, 36, size=(2, 12)))] = True
        points = _contour(mask, (1.3, 0.6))
        found = diameters(mask, (1.3, 0.6))
        assert found.perpendicular == pytest.approx(_widest_chord(points), rel=2e-3)


def _widest_chord(points: np.ndarray) -> float:
    """Of the hull, given as the points between any two contour points, at a right angle to the longest line."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    first, last = np.unravel_index(np.argmax(apart), apart.shape)
    line = (points[last] - points[first]) / apart[first, last]
    along, across = points @ line, points @ np.array([-line[1], line[0]])
    best = 0.0
    for place in np.linspace(along.min(), along.max(), 1501):
        left, right = along <= place, along >= place
        weight = (place - along[left])[:, None] / np.maximum(along[right] - along[left][:, None], 1e-12)
        heights = across[left][:, None] * (1 - weight) + across[right] * weight
        best = max(best, float(np.ptp(heights)))
    return best


def test_sizes_agree_with_regionprops() -> None:
    labels = np.zeros((200, 200), int)
    labels[_ellipse(70, 30, 20)] = 1
    labels[_ellipse(20, 9, 60)] = 2
    for lesion, region in zip(measure(labels, (1, 1), "pixel").lesions, regionprops(labels), strict=True):
        assert lesion.area == region.area
        hull = labels == region.label
        if region.label == 2:  # a convex region: its Feret diameter needs no hull of its own
            assert diameters(hull, (1, 1)).longest == pytest.approx(region.feret_diameter_max, abs=0.02)
            assert lesion.perpendicular == pytest.approx(region.axis_minor_length, abs=1)
    stretched = regionprops(labels, spacing=(0.5, 2.0))
    assert [r.area for r in stretched] == [x.area for x in measure(labels, (0.5, 2.0)).lesions]


@pytest.mark.parametrize(
    ("shape", "spacing"), [((4, 4), (1, 1, 1)), ((4,), (1,)), ((4, 4), (1, 0)), ((4, 4), (1, math.nan))]
)
def test_measure_refuses_what_does_not_fit(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing"):
        measure(np.ones(shape, int), spacing)


def test_limits_of_agreement() -> None:
    found = agreement([11.0, 19.0, 32.0, 42.0], [10, 20, 30, 40])
    assert found.count == 4
    assert found.bias == 1.0
    spread = np.sqrt((0 + 4 + 1 + 1) / 3)
    assert found.high - found.bias == pytest.approx(1.96 * spread)
    assert found.bias - found.low == pytest.approx(1.96 * spread)
    assert found.correlation == pytest.approx(np.corrcoef([11, 19, 32, 42], [10, 20, 30, 40])[0, 1])
    assert agreement([3, 2, 1], [1, 2, 3]).correlation == pytest.approx(-1)


def test_too_little_to_agree_on() -> None:
    assert math.isnan(agreement([], []).bias)
    one = agreement([3], [2])
    assert (one.count, one.bias) == (1, 1.0)
    assert math.isnan(one.low)
    assert math.isnan(one.correlation)
    assert math.isnan(agreement([1, 2, 3], [5, 5, 5]).correlation)
    assert math.isnan(agreement([1, 2], [1, 3]).correlation)
    assert agreement([1, 2], [1, 3]).low < -0.5
    with pytest.raises(ValueError, match="length"):
        agreement([1], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        agreement([np.nan], [1])
