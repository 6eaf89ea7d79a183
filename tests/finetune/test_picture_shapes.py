"""Pictures keep the proportions of what they show, and contours lie where the masks do."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.finetune.pictures import NEW, SIDE, around, contoured
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane


@pytest.mark.parametrize(
    ("window", "shape"),
    [
        ((0, 0, 40, 80), (SIDE // 2, SIDE)),
        ((10, 20, 90, 40), (SIDE, SIDE // 4)),
        ((0, 0, 160, 160), (SIDE, SIDE)),
    ],
)
def test_the_longer_side_is_as_long_as_ever(
    window: tuple[int, int, int, int], shape: tuple[int, int]
) -> None:
    plane = Plane.from_array(np.arange(200 * 200, dtype=np.uint16).reshape(200, 200))
    assert contoured(plane, Box(*window), []).shape == (*shape, 3)


def test_a_contour_is_the_rim_of_its_mask() -> None:
    plane = Plane.from_array(np.zeros((200, 200), np.uint8))
    mask = np.zeros((200, 200), bool)
    mask[40:80, 60:80] = True
    drawn = (contoured(plane, Box(20, 40, 100, 120), [(mask, NEW)]) == NEW).all(
        axis=-1
    )  # enlarged four times
    rows, cols = np.nonzero(drawn)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (80, 239, 80, 159)
    assert not drawn[84:236, 84:156].any()


def test_the_window_is_a_square_with_room_cut_at_the_edges() -> None:
    assert around(Box(90, 80, 110, 120), (300, 300)) == (68, 68, 133, 133)  # 1.6 times 40 around (100, 100)
    assert around(Box(0, 0, 20, 20), (300, 300)) == (0, 0, 27, 27)
    assert around(Box(280, 290, 300, 300), (300, 300))[2:] == (300, 300)
    assert around(Box(100, 100, 101, 101), (300, 300)) == (94, 94, 107, 107)  # room around the smallest, too
