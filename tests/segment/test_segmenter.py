from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import ImageError, PromptError
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field, Frame, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.decode import predict
from napari_medsam.segment.segmenter import Segmenter

BOXES = [[20, 40, 120, 200], [100, 100, 180, 140]]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)


def _filled(shape: tuple[int, int], box: Any) -> np.ndarray:
    mask = np.zeros(shape, bool)
    r0, c0, r1, c1 = np.round(box).astype(int)
    mask[r0:r1, c0:c1] = True
    return mask


def test_segment_gives_one_mask_for_each_box(model: Any, image: np.ndarray) -> None:
    masks = Segmenter(model).segment(image, BOXES, field="whole")
    assert (masks.shape, masks.dtype) == ((2, 300, 400), bool)
    for mask, box in zip(masks, BOXES, strict=True):
        assert (mask != _filled((300, 400), box)).sum() <= 2 * (mask.shape[0] + mask.shape[1])
    np.testing.assert_allclose(model.decoded[0], np.array(BOXES) * 256 / 400, rtol=1e-6)


@pytest.mark.parametrize("frame", [Frame(1024), Frame(1024, squash=True, resample="bicubic")])
def test_frames_of_other_sizes_hit_the_same_place(model: Any, image: np.ndarray, frame: Frame) -> None:
    model.frame = frame
    mask = Segmenter(model).segment(image, BOXES[:1])[0]
    expected = _filled((300, 400), BOXES[0])
    assert (mask & expected).sum() / (mask | expected).sum() > 0.97


def test_no_boxes_cost_no_encode(model: Any, image: np.ndarray) -> None:
    masks = Segmenter(model).segment(image, [])
    assert (masks.shape, masks.dtype) == ((0, 300, 400), bool)
    assert model.encoded == []
    assert predict(model, Segmenter(model).embed(Plane.from_array(image)), []) == []
    assert model.decoded == []


def test_predictions_are_tight_and_know_where_they_come_from(model: Any, image: np.ndarray) -> None:
    segmenter, plane = Segmenter(model), Plane.from_array(image)
    first, second = segmenter.predict(plane, [Box(*BOXES[0]), Box(*BOXES[1])], field="whole")
    assert (first.iou, second.iou) == pytest.approx((0.9, 0.5))
    assert first.box == Box(*BOXES[0])
    assert (first.field, first.key) == (whole_field((300, 400)), segmenter.embed(plane).key)
    assert first.mask.any(axis=0).all()
    assert first.mask.any(axis=1).all()
    assert abs(first.row - 20) <= 1
    assert abs(first.col - 40) <= 1
    full = first.full((300, 400))
    assert full.sum() == first.area == first.mask.sum()


def test_an_empty_mask_stays_at_the_boxs_corner(model: Any, image: np.ndarray) -> None:
    model.empty = True
    (prediction,) = Segmenter(model).predict(Plane.from_array(image), [[20.7, 40.2, 50, 60]])
    assert (prediction.row, prediction.col, prediction.mask.shape) == (20, 40, (0, 0))
    assert (prediction.iou, prediction.area) == (pytest.approx(0.9), 0)
    assert not prediction.full((300, 400)).any()


def test_boxes_are_clipped_before_they_are_decoded(model: Any, image: np.ndarray) -> None:
    (prediction,) = Segmenter(model).predict(Plane.from_array(image), [[-50, -50, 900, 900]])
    assert prediction.box == Box(0, 0, 300, 400)
    assert prediction.full((300, 400)).all()


def test_a_field_can_be_chosen(model: Any, image: np.ndarray) -> None:
    field = Field(80, 90, 128, 128)
    (prediction,) = Segmenter(model).predict(Plane.from_array(image), [BOXES[1]], "auto", field)
    np.testing.assert_allclose(model.decoded[0], [[40, 20, 200, 100]])
    assert (prediction.row, prediction.col, prediction.mask.shape) == (100, 100, (80, 40))


def test_the_cache_saves_the_second_encode(model: Any, image: np.ndarray, tmp_path: Path) -> None:
    once = Segmenter(model, EmbeddingCache(tmp_path)).segment(image, BOXES, field="whole")
    again = Segmenter(model, EmbeddingCache(tmp_path)).segment(image, BOXES, field="whole")
    np.testing.assert_array_equal(once, again)
    assert len(model.encoded) == 1
    Segmenter(model, EmbeddingCache(tmp_path)).segment(image, BOXES, contrast="0,100", field="whole")
    assert len(model.encoded) == 2


def test_contrast_and_channels_reach_the_encoder(model: Any, image: np.ndarray) -> None:
    stack = np.stack([image, np.full_like(image, 9), image // 2])
    segmenter = Segmenter(model)
    segmenter.segment(stack, BOXES, contrast="0,255", channel_axis=0, channels=[1], field="whole")
    assert np.unique(model.encoded[0][:, :192, :256]).tolist() == [np.float32(9 / 255)]
    segmenter.segment(Plane.from_array(image), BOXES, Contrast(mode="window", window=(0.0, 1.0)), "whole")
    assert model.encoded[1].max() == 1


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 5, 5], [300, 0, 310, 9]], "Box 2: .*outside"),
        ([[5, 5, 5, 9]], "Box 1: .*area"),
        ([[1, 2, 3]], "shape"),
    ],
)
def test_bad_boxes_are_named_before_anything_is_encoded(
    model: Any, image: np.ndarray, boxes: Any, message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        Segmenter(model).segment(image, boxes)
    assert model.encoded == []


def test_bad_images_fields_and_contrasts_are_refused(model: Any, image: np.ndarray) -> None:
    segmenter = Segmenter(model)
    with pytest.raises(ImageError, match="object"):
        segmenter.segment(np.empty((5, 5), object), [[0, 0, 3, 3]])
    with pytest.raises(ImageError, match="Unknown contrast"):
        segmenter.segment(image, BOXES, contrast="bright")
    with pytest.raises(ImageError, match="no channel 4"):
        segmenter.segment(image, BOXES, channels=[4])
    with pytest.raises(PromptError, match="'whole'"):
        segmenter.segment(image, BOXES, field="nowhere")
