from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from napari_medsam.image.field import Field, Frame, whole_field
from napari_medsam.segment.logits import mask_from_logits


def _blobs(seed: int, smooth: float, positive: float) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(256, 256)), smooth)
    noise = (noise - np.quantile(noise, 1 - positive)) / np.abs(noise).max()
    return np.asarray(noise, dtype=np.float32)


def _reference(logits: np.ndarray, field: Field, frame: Frame) -> np.ndarray:
    """Enlarge to the frame, crop the padding, resize to the field: all of it, with torch."""
    torch = pytest.importorskip("torch")
    height, width = frame.shape(field)
    full = torch.from_numpy(logits)[None, None]
    for size, crop in (((frame.size,) * 2, (height, width)), ((field.height, field.width), (None, None))):
        full = torch.nn.functional.interpolate(full, size, mode="bilinear", align_corners=False)
        full = full[..., : crop[0], : crop[1]]
    return np.asarray(full[0, 0])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    frame=st.sampled_from([Frame(256), Frame(256, squash=True), Frame(1024), Frame(1024, squash=True)]),
    seed=st.integers(0, 5),
    smooth=st.sampled_from([0.5, 3, 12]),
    positive=st.sampled_from([0.001, 0.1, 0.8]),
)
def test_equals_the_full_size_interpolation(
    shape: tuple[int, int], frame: Frame, seed: int, smooth: float, positive: float
) -> None:
    logits, field = _blobs(seed, smooth, positive), whole_field(shape)
    expected = _reference(logits, field, frame)
    row, col, mask = mask_from_logits(logits, field, frame)
    got = np.zeros(shape, bool)
    got[row : row + mask.shape[0], col : col + mask.shape[1]] = mask
    assert np.abs(expected[got != (expected > 0)]).max(initial=0) < 1e-4
    assert (got != (expected > 0)).mean() < 1e-3 + 1 / got.size
    if mask.size:
        assert mask[[0, -1]].any(axis=1).all()
        assert mask[:, [0, -1]].any(axis=0).all()


def test_the_mask_lies_where_the_field_lies() -> None:
    logits = np.full((256, 256), -1, np.float32)
    logits[64:128, 32:96] = 1
    row, col, mask = mask_from_logits(logits, Field(1000, 500, 512, 512, "centred"), Frame(256))
    assert (row, col, mask.shape) == (1000 + 128, 500 + 64, (128, 128))
    assert mask.all()


@pytest.mark.parametrize("positive", [False, True])
def test_nothing_in_the_content_is_no_mask(positive: bool) -> None:
    logits = np.full((256, 256), -1, np.float32)
    if positive:
        logits[200:] = 1  # in the padding under a field twice as wide as tall
    row, col, mask = mask_from_logits(logits, Field(10, 10, 100, 200), Frame(256))
    assert (row, col, mask.shape, mask.dtype) == (0, 0, (0, 0), bool)


def test_not_a_number_is_background() -> None:
    logits = np.full((256, 256), np.nan, np.float32)
    assert mask_from_logits(logits, whole_field((300, 300)), Frame(256))[2].size == 0
