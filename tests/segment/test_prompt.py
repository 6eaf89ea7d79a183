from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box
from napari_medsam.segment.prompt import boxes_in_plane


def test_from_points_is_their_bounding_box() -> None:
    assert Box.from_points([[5, 9], [1, 20], [3, 2.5]]) == Box(1, 2.5, 5, 20)


@pytest.mark.parametrize("points", [np.zeros((0, 2)), [1, 2], np.zeros((4, 3))])
def test_from_points_refuses(points: object) -> None:
    with pytest.raises(PromptError, match=r"\(k, 2\)"):
        Box.from_points(points)  # type: ignore[arg-type]


def test_clip_keeps_what_lies_inside() -> None:
    assert Box(2, 3, 4, 5).clip((10, 10)) == Box(2, 3, 4, 5)
    assert Box(-5, -1, 40, 7.5).clip((10, 8)) == Box(0, 0, 10, 7.5)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(3, 3, 3, 8), "no area"),
        (Box(3, 8, 5, 2), "no area"),
        (Box(np.nan, 0, 5, 5), "not finite"),
        (Box(0, 0, np.inf, 5), "not finite"),
        (Box(10, 0, 12, 5), "outside"),
        (Box(-4, 0, 0, 5), "outside"),
        (Box(0, 8, 3, 9), "outside"),
    ],
)
def test_clip_refuses(box: Box, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        box.clip((10, 8))


def test_boxes_in_plane_takes_arrays_lists_and_boxes() -> None:
    expected = [Box(0, 1, 5, 6), Box(2, 2, 4, 4)]
    rows = [[-3, 1, 5, 6], [2, 2, 4, 4]]
    assert boxes_in_plane(rows, (10, 10)) == expected
    assert boxes_in_plane(np.array(rows, np.int16), (10, 10)) == expected
    assert boxes_in_plane([Box(-3, 1, 5, 6), Box(2, 2, 4, 4)], (10, 10)) == expected
    assert boxes_in_plane([], (10, 10)) == []
    assert boxes_in_plane(np.zeros((0, 4)), (10, 10)) == []


def test_boxes_in_plane_names_the_bad_one() -> None:
    with pytest.raises(PromptError, match=r"^Box 2: .* no area"):
        boxes_in_plane([[0, 0, 5, 5], [3, 3, 3, 9]], (10, 10))


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3]], [[]], "abc", [["a", "b", "c", "d"]], 5])
def test_boxes_in_plane_refuses_other_shapes(boxes: object) -> None:
    with pytest.raises(PromptError, match=r"\(N, 4\)"):
        boxes_in_plane(boxes, (10, 10))  # type: ignore[arg-type]
