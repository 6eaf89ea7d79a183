"""A lookup never gives an embedding of other pixels, another contrast or another encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, embed
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment import fields as fields_module
from napari_medsam.segment.fields import centred_field, grid_field
from napari_medsam.session import lookup as lookup_module
from napari_medsam.session.lookup import FieldLookup

AUTO = Contrast()
SMALL, LARGE = Box(40, 40, 60, 70), Box(10, 10, 180, 190)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (200, 200), dtype=np.uint8)


@pytest.fixture
def lookup(tmp_path: Path) -> FieldLookup:
    return FieldLookup(EmbeddingCache(tmp_path / "kept"))


def keep(lookup: FieldLookup, model: Any, plane: Plane, field: Field, contrast: Contrast = AUTO) -> Embedding:
    return embed(model, lookup.cache, lookup.request(plane, contrast, field, 0, 0))


def look(
    lookup: FieldLookup, model: Any, plane: Plane, box: Box, contrast: Contrast = AUTO
) -> Embedding | None:
    return lookup.best(model, plane, contrast, box, "auto", {})


def test_nothing_is_encoded_by_looking(lookup: FieldLookup, model: Any, pixels: np.ndarray) -> None:
    plane = Plane.from_array(pixels)
    assert look(lookup, model, plane, SMALL) is None
    assert model.encoded == []


def test_the_boxs_own_field_comes_first_then_the_grid_then_the_plane(
    lookup: FieldLookup, model: Any, pixels: np.ndarray
) -> None:
    plane = Plane.from_array(pixels)
    own, grid = (choose(SMALL, plane.shape, lookup.policy) for choose in (centred_field, grid_field))
    for field in (whole_field(plane.shape), grid, own):
        kept = keep(lookup, model, plane, field)
        found = look(lookup, model, plane, SMALL)
        assert found is not None
        assert (found.field, found.key) == (field, kept.key)
        np.testing.assert_array_equal(found.features, kept.features)


@pytest.mark.parametrize("box", [SMALL, LARGE])
def test_pixels_changed_in_place_are_seen(
    lookup: FieldLookup, model: Any, pixels: np.ndarray, box: Box
) -> None:
    plane = Plane.from_array(pixels)
    keep(lookup, model, plane, whole_field(plane.shape))
    assert look(lookup, model, plane, box) is not None
    assert look(lookup, model, plane, box) is not None  # now remembered
    pixels[50, 50] ^= 0x80
    pixels[0:30] = 255 - pixels[0:30]
    assert look(lookup, model, plane, box) is None


def test_another_contrast_encoder_precision_or_colour_is_a_miss(
    lookup: FieldLookup, model: Any, pixels: np.ndarray
) -> None:
    plane = Plane.from_array(pixels)
    keep(lookup, model, plane, whole_field(plane.shape))
    assert look(lookup, model, plane, LARGE) is not None
    assert look(lookup, model, plane, LARGE, Contrast("window", (0.0, 90.0))) is None
    for name in ("encoder_hash", "precision"):
        before = getattr(model, name)
        setattr(model, name, "another")
        assert look(lookup, model, plane, LARGE) is None
        setattr(model, name, before)
    assert look(lookup, model, plane, LARGE) is not None


def test_a_cleared_cache_is_a_miss(lookup: FieldLookup, model: Any, pixels: np.ndarray) -> None:
    plane = Plane.from_array(pixels)
    keep(lookup, model, plane, whole_field(plane.shape))
    assert look(lookup, model, plane, LARGE) is not None
    lookup.cache.clear()
    assert look(lookup, model, plane, LARGE) is None


def test_a_large_plane_is_read_again_once_it_is_forgotten(
    lookup: FieldLookup, model: Any, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_module, "REUSE_ABOVE", 100)
    plane = Plane.from_array(pixels)
    kept = keep(lookup, model, plane, whole_field(plane.shape))
    assert look(lookup, model, plane, LARGE) is not None
    pixels[:] = 255 - pixels
    found = look(lookup, model, plane, LARGE)
    assert found is not None
    assert found.key == kept.key  # remembered: nobody said that the pixels changed
    lookup.forget()
    assert look(lookup, model, plane, LARGE) is None


@pytest.mark.parametrize("reuse_above", [100, 2**21])
def test_only_a_boxs_own_field_has_a_contrast_of_its_own(
    lookup: FieldLookup, model: Any, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, reuse_above: int
) -> None:
    monkeypatch.setattr(lookup_module, "REUSE_ABOVE", reuse_above)
    pixels[20:80, 20:90] //= 5  # dim around the box
    plane = Plane.from_array(pixels)
    own, grid = (choose(SMALL, plane.shape, lookup.policy) for choose in (centred_field, grid_field))
    of_plane = resolve_contrast(plane, AUTO)
    inside = pixels[own.row : own.row + own.height, own.col : own.col + own.width]
    assert keep(lookup, model, plane, grid).window == of_plane
    assert keep(lookup, model, plane, whole_field(plane.shape)).window == of_plane
    assert keep(lookup, model, plane, own).window.limits[0] == pytest.approx(
        tuple(np.percentile(inside, (0.5, 99.5)))
    )
    manual = Contrast("window", (3.0, 90.0))
    assert keep(lookup, model, plane, own, manual).window.limits == ((3.0, 90.0),)
    own_again = look(lookup, model, plane, SMALL)
    assert own_again is not None
    assert own_again.field == own


def test_a_plane_too_large_to_be_read_whole_is_not_looked_up_whole(
    lookup: FieldLookup, model: Any, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = Plane.from_array(pixels)
    keep(lookup, model, plane, whole_field(plane.shape))
    monkeypatch.setattr(fields_module, "WHOLE_UP_TO", 100)
    assert look(lookup, model, plane, SMALL) is None
    assert look(lookup, model, plane, LARGE) is not None  # this box needs it
