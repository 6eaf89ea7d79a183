"""Shapes as clicks: inside the shape, far from its outline, evenly along a line, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.segment.strokes import clicks_along, inner_clicks


def places(points: tuple) -> np.ndarray:
    return np.array([(point.row, point.col) for point in points])


def test_a_square_has_its_middle_first() -> None:
    points = inner_clicks([[10, 20], [10, 60], [50, 60], [50, 20]])
    assert np.allclose(places(points)[0], (30, 40), atol=1)
    assert all(point.positive for point in points)


def test_both_ends_of_a_dumbbell_get_a_click() -> None:
    outline = [
        [0, 0],
        [0, 40],
        [15, 40],
        [15, 80],
        [0, 80],
        [0, 120],
        [40, 120],
        [40, 80],
        [25, 80],
        [25, 40],
    ]
    found = places(inner_clicks([*outline, [40, 40], [40, 0]]))
    assert found[:, 1].min() < 40
    assert found[:, 1].max() > 80


@pytest.mark.parametrize("scale", [0.1, 1.0, 300.0])
def test_clicks_of_a_crescent_lie_inside_it_at_every_scale(scale: float) -> None:
    angle = np.linspace(0, np.pi, 60)
    outer = np.stack([np.sin(angle), np.cos(angle)], axis=1) * 100
    crescent = np.concatenate([outer, (outer * (0.7, 0.7))[::-1]]) * scale + 7
    points = inner_clicks(crescent)
    assert points
    assert points == inner_clicks(crescent)
    radius = np.hypot(*((places(points) - 7) / scale).T)
    assert ((radius > 69) & (radius < 101)).all()


def test_an_outline_without_an_inside_has_one_click_on_it() -> None:
    assert np.allclose(places(inner_clicks([[5, 5], [5, 5], [5, 5]])), [[5, 5]])


def test_clicks_lie_evenly_along_a_path() -> None:
    found = places(clicks_along([[0, 0], [0, 50], [50, 50]]))
    assert np.allclose(found, [[0, 10], [0, 30], [0, 50], [20, 50], [40, 50]])


def test_a_short_path_has_fewer_and_a_dot_has_one() -> None:
    assert len(clicks_along([[0, 0], [0, 17]])) == 2
    assert np.allclose(places(clicks_along([[3, 4], [3, 4]])), [[3, 4]])
