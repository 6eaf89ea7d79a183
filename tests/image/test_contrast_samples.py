"""Limits come from all of a plane that is small: its first and last rows and columns count too."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.plane import Plane

ALL = Contrast(percentiles=(0, 100))


@pytest.mark.parametrize("place", [(0, 0), (0, 6), (4, 0), (4, 6)])
def test_each_corner_of_a_plane_counts(place: tuple[int, int]) -> None:
    pixels = np.full((5, 7), 100, np.uint16)
    pixels[place] = 900
    assert resolve_contrast(Plane.from_array(pixels), ALL).limits == ((100, 900),)


@pytest.mark.parametrize("place", [(2, 3), (2, 5), (3, 3), (3, 5)])
def test_each_corner_of_a_part_counts_and_nothing_beyond(place: tuple[int, int]) -> None:
    pixels = np.full((8, 9), 1000, np.uint16)
    pixels[2:4, 3:6] = 100
    pixels[place] = 50
    assert resolve_contrast(Plane.from_array(pixels), ALL, Box(2, 3, 4, 6)).limits == ((50, 100),)
