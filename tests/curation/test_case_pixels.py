"""A case keeps the range that the model saw: the plane's, widened to that of the field of each object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medsam.curation.case import Case
from napari_medsam.curation.pixels import case_pixels, contrast_record, seen_plane, widened
from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.field import field_window
from napari_medsam.image.plane import Plane
from napari_medsam.segment.fields import FieldPolicy, centred_field
from napari_medsam.segment.prompt import Box

SHAPE = (400, 400)
BRIGHT, DARK, LARGE = Box(20, 30, 40, 50), Box(300, 310, 320, 330), Box(10, 10, 390, 390)
AUTO = Contrast.parse("auto")


def make_pixels() -> np.ndarray:
    """Values around 1000, a spot up to 3000 and one down to 100: each too small for the plane's percentiles."""
    pixels = np.random.default_rng(0).integers(900, 1100, SHAPE).astype(np.uint16)
    pixels[20:40, 30:50] = np.linspace(2000, 3000, 400).reshape(20, 20)
    pixels[300:320, 310:330] = np.linspace(100, 500, 400).reshape(20, 20)
    return pixels


def range_of(plane: Plane, box: Box, contrast: Contrast = AUTO) -> tuple[float, float]:
    """What inference takes as the limits of the field around a box."""
    [limits] = field_window(plane, contrast, centred_field(box, plane.shape, FieldPolicy())).limits
    return limits


@pytest.fixture
def plane() -> Plane:
    return Plane.from_array(make_pixels())


def test_without_objects_it_is_the_planes_own_range(plane: Plane) -> None:
    imgs, window = case_pixels(plane, AUTO, [])
    assert window == resolve_contrast(plane, AUTO)
    assert window.limits[0][1] < 1200
    assert (imgs.shape, imgs.dtype) == ((*SHAPE, 3), np.uint8)


def test_a_bright_object_widens_it_upwards_only(plane: Plane) -> None:
    _, window = case_pixels(plane, AUTO, [BRIGHT])
    [(low, high)] = resolve_contrast(plane, AUTO).limits
    assert range_of(plane, BRIGHT)[1] > high + 1000
    assert range_of(plane, BRIGHT)[0] >= low
    assert window.limits == ((low, range_of(plane, BRIGHT)[1]),)


def test_bright_and_dark_objects_widen_it_both_ways(plane: Plane) -> None:
    imgs, window = case_pixels(plane, AUTO, [BRIGHT, DARK])
    assert window.limits == ((range_of(plane, DARK)[0], range_of(plane, BRIGHT)[1]),)
    inside = imgs[20:40, 30:50, 0]
    assert len(np.unique(inside)) > 50  # its own shades are kept
    assert inside.min() > imgs[100:200, 100:200].max() > imgs[300:320, 310:330].max()


def test_an_object_that_is_shown_the_whole_plane_changes_nothing(plane: Plane) -> None:
    assert widened(resolve_contrast(plane, AUTO), plane, AUTO, [LARGE]) == resolve_contrast(plane, AUTO)


def test_a_field_is_seen_with_its_background() -> None:
    """The plane's range may leave the background out; inference never does in a field."""
    pixels = make_pixels()
    pixels[:, :250] = 0
    plane, contrast = Plane.from_array(pixels), replace(AUTO, foreground=True)
    beside = Box(200, 240, 220, 260)
    window = resolve_contrast(plane, contrast)
    assert window.limits[0][0] > 0
    wide = widened(window, plane, contrast, [beside])
    assert wide.limits == ((0.0, window.limits[0][1]),)


def test_each_channel_is_widened_by_itself() -> None:
    pixels = np.stack([make_pixels(), np.full(SHAPE, 50, np.uint16)], axis=-1)
    pixels[..., 1] += np.arange(400, dtype=np.uint16)
    plane = Plane.from_array(pixels, channel_axis=2)
    first, second = case_pixels(plane, AUTO, [BRIGHT])[1].limits
    assert first[1] > 2500
    assert second == resolve_contrast(plane, AUTO).limits[1]


def test_a_fixed_window_stays_what_it_is(plane: Plane) -> None:
    window = case_pixels(plane, Contrast.parse("0,1500"), [BRIGHT, DARK])[1]
    assert window.limits == ((0.0, 1500.0),)


def test_a_case_is_shown_again_as_it_was_seen(plane: Plane) -> None:
    """Limits that differ only by the scale to 8 bits: the field of a case looks as the field of its plane did."""
    imgs, window = case_pixels(plane, AUTO, [BRIGHT])
    case = Case(imgs, np.ones(SHAPE, np.uint8), (1.0, 1.0), (), contrast=contrast_record(AUTO, window))
    low, high = range_of(seen_plane(case, 0, "case"), BRIGHT)
    scale = (window.limits[0][1] - window.limits[0][0]) / 255
    wanted = range_of(plane, BRIGHT)
    assert low * scale + window.limits[0][0] == pytest.approx(wanted[0], abs=2 * scale)
    assert high * scale + window.limits[0][0] == pytest.approx(wanted[1], abs=2 * scale)
