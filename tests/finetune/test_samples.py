"""Cases to samples: the field, the mask in the logits' grid, boxes as somebody draws them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from finetune_fakes import FRAME, disc_case, disc_samples

from napari_medsam.curation.case import Case, CaseObject
from napari_medsam.evaluate.metrics import dice_coefficient
from napari_medsam.finetune.config import VIEWS, FinetuneConfig
from napari_medsam.finetune.samples import (
    LEAST_PIXELS,
    USUAL_GROWTH,
    Sample,
    boxes_of_epoch,
    order_of_epoch,
    samples_of,
    target_on,
    turned,
)
from napari_medsam.geometry import Box, bbox_of
from napari_medsam.image.field import Field, Frame
from napari_medsam.segment.fields import DEFAULT_POLICY, centred_field
from napari_medsam.segment.logits import mask_from_logits

LITE, MEDSAM, SAM = Frame(256), Frame(1024, squash=True, resample="bicubic"), Frame(1024, resample="bilinear")


def samples(case: Case, frame: Frame = FRAME, views: int = 1, **config: object) -> list[Sample]:
    return samples_of(case, "case", FinetuneConfig(**config), frame, DEFAULT_POLICY, views)  # type: ignore[arg-type]


def labelled(gts: np.ndarray) -> Case:
    found = np.unique(gts[gts > 0]).tolist()
    objects = tuple(CaseObject(label, "cell", 1) for label in found)
    imgs = np.random.default_rng(0).integers(0, 256, (*gts.shape, 3), dtype=np.uint8)
    return Case(imgs if gts.ndim == 2 else imgs[..., 0], gts, (1.0,) * gts.ndim, objects)


# the target's grid


def test_a_shrunk_target_is_the_share_of_each_logit() -> None:
    mask = np.zeros((512, 512), bool)
    mask[10:101, 20:200] = True  # half of a logit's rows at the bottom
    target = target_on(mask, Field(0, 0, 512, 512), LITE)
    assert (target.shape, target.dtype) == ((256, 256), np.uint8)
    assert target.astype(float).sum() / 255 * 4 == pytest.approx(mask.sum(), rel=1e-3)
    np.testing.assert_array_equal(target[49:52, 50], [255, 128, 0])


def test_an_enlarged_target_is_smooth_and_of_the_right_size() -> None:
    mask = np.zeros((300, 300), bool)
    mask[110:130, 112:128] = True
    target = target_on(mask, Field(100, 100, 32, 32, "centred"), LITE)
    assert target.shape == (256, 256)
    assert target.astype(float).sum() / 255 / 64 == pytest.approx(mask.sum(), rel=0.01)
    assert bbox_of(target > 127) == (80, 96, 240, 224)


@pytest.mark.parametrize("frame", [LITE, MEDSAM, SAM])
@pytest.mark.parametrize("shape", [(300, 300), (301, 197), (150, 403), (1400, 1001), (40, 37), (700, 30)])
def test_the_target_lies_where_the_logits_will_be_read(shape: tuple[int, int], frame: Frame) -> None:
    """What prediction makes of a target taken for logits is the mask, whatever the frame and its padding."""
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    mask = ((rows / shape[0] - 0.6) / 0.35) ** 2 + ((cols / shape[1] - 0.58) / 0.4) ** 2 < 1
    field = Field(0, 0, *shape)
    target = target_on(mask, field, frame)
    logits = np.full((256, 256), -128, np.float32)
    logits[: target.shape[0], : target.shape[1]] = target.astype(np.float32) - 127.5
    found = np.zeros_like(mask)
    row, col, tight = mask_from_logits(logits, field, frame)
    found[row : row + tight.shape[0], col : col + tight.shape[1]] = tight
    assert dice_coefficient(found, mask) > 0.98


def test_planes_that_are_not_square_leave_the_padding_out() -> None:
    assert target_on(np.ones((100, 50), bool), Field(0, 0, 100, 50), LITE).shape == (256, 128)
    assert target_on(np.ones((100, 50), bool), Field(0, 0, 100, 50), MEDSAM).shape == (256, 256)
    padded = target_on(np.ones((100, 33), bool), Field(0, 0, 100, 33), SAM)
    assert padded.shape == (256, math.ceil(round(1024 * 0.33) / 4))
    assert (padded == 255).all()  # the last one too, within which the content ends


# samples of a case


def test_one_sample_an_object_on_the_field_that_answers_its_box() -> None:
    gts = np.zeros((200, 300), np.int32)
    gts[20:40, 30:60] = 1
    gts[50:190, 80:290] = 2
    small, large = samples(labelled(gts))
    assert (small.label, large.label) == (1, 2)
    assert small.field == centred_field(small.box, gts.shape, DEFAULT_POLICY)
    assert (large.field.height, large.field.width) == gts.shape
    assert (small.case, small.group, small.class_name, small.plane) == ("case", "case", "cell", 0)
    for sample in (small, large):
        r0, c0, r1, c1 = bbox_of(gts == sample.label) or (0, 0, 0, 0)
        assert sample.box.r0 < r0 < r1 < sample.box.r1
        assert sample.box.c0 < c0 < c1 < sample.box.c1
        assert sample.field.box.contains(sample.box)
        assert sample.target.shape == FRAME.shape(sample.field)


def test_class_and_group_come_from_the_case() -> None:
    first, second = samples(disc_case(0, (64, 128), count=2, group="movie"))
    assert (first.class_name, second.class_name) == ("cell", "debris")
    assert {first.group, second.group} == {"movie"}
    (bare,) = samples(replace(disc_case(1), objects=()))
    assert bare.class_name == "unknown"


def test_objects_too_small_and_cases_without_any() -> None:
    gts = np.zeros((64, 64), np.int32)
    assert samples(labelled(gts)) == []
    gts[3, 3 : 3 + LEAST_PIXELS - 1] = 1
    gts[30, 3 : 3 + LEAST_PIXELS] = 2
    assert [sample.label for sample in samples(labelled(gts))] == [2]


def test_a_volume_gives_a_sample_for_each_slice_of_an_object() -> None:
    gts = np.zeros((5, 64, 64), np.int32)
    gts[1:4, 10:40, 10:40] = 1
    gts[3, 45:60, 45:60] = 2
    case = labelled(gts)
    found = samples(case)
    assert [(sample.plane, sample.label) for sample in found] == [(1, 1), (2, 1), (3, 1), (3, 2)]
    np.testing.assert_array_equal(np.asarray(found[1].image.levels[0])[..., 0], case.imgs[2])
    assert found[2].image is found[3].image
    assert samples(labelled(np.zeros((3, 20, 20), np.int32))) == []


# detail


def divided(rng: np.random.Generator) -> tuple[np.ndarray, list[Sample]]:
    """A rectangle somewhere in a plane, and its samples in detail."""
    shape = rng.integers(50, 300, 2)
    sides = [int(rng.integers(length // 2, length + 1)) for length in shape]
    row, col = (int(rng.integers(0, length - side + 1)) for length, side in zip(shape, sides, strict=True))
    gts = np.zeros(shape, np.int32)
    gts[row : row + sides[0], col : col + sides[1]] = 1
    return gts, samples(labelled(gts), detail=int(rng.integers(2, 7)))


def test_detail_fields_cover_an_object_about_once() -> None:
    rng = np.random.default_rng(0)
    means = []
    for _ in range(60):
        gts, found = divided(rng)
        times = np.zeros(gts.shape, int)
        for sample in found:
            field = sample.field
            assert sample.box.intersect(field.box) == sample.box
            assert sample.box.r0 < sample.box.r1
            assert sample.box.c0 < sample.box.c1
            times[field.row : field.row + field.height, field.col : field.col + field.width] += 1
        inside = times[gts == 1]
        assert np.mean(inside > 0) > 0.65  # at most a quarter of a field is left out at an end
        means.append(inside.mean())
    assert 0.9 < np.mean(means) < 1.15
    assert max(means) < 2.6


def test_detail_is_for_what_is_larger_than_a_field() -> None:
    (whole,) = samples(disc_case(0, radius=14), detail=1)
    (small,) = samples(disc_case(0, radius=14), detail=2)
    assert (whole.field, whole.box) == (small.field, small.box)


# boxes


def test_boxes_are_replayed_and_differ_between_epochs_and_seeds() -> None:
    found = disc_samples(range(4))
    config = FinetuneConfig(seed=1)
    assert boxes_of_epoch(found, config, 3) == boxes_of_epoch(found, config, 3)
    assert boxes_of_epoch(found, config, 3) != boxes_of_epoch(found, config, 4)
    assert boxes_of_epoch(found, config, 3) != boxes_of_epoch(found, replace(config, seed=2), 3)
    assert order_of_epoch(50, config, 1).tolist() != order_of_epoch(50, config, 2).tolist()
    assert sorted(order_of_epoch(50, config, 1)) == list(range(50))


@pytest.mark.parametrize("jitter", [(-0.02, 0.1), (-0.39, 0.99), (0.0, 0.0)])
def test_boxes_stay_in_the_field_and_within_the_jitter(jitter: tuple[float, float]) -> None:
    gts = np.zeros((200, 200), np.int32)
    gts[80:110, 90:130] = 1
    (sample,) = samples(labelled(gts))
    config = FinetuneConfig(jitter=jitter)
    bbox = np.array(bbox_of(gts == 1))
    outwards = np.array([-1, -1, 1, 1]) / np.array([30, 40, 30, 40])
    moved = []
    for epoch in range(60):
        (box,) = boxes_of_epoch([sample], config, epoch)
        assert sample.field.box.contains(box)
        assert box.r0 < box.r1
        assert box.c0 < box.c1
        moved.append((box.array() - bbox) * outwards)
    slack = [0.051 * abs(share - USUAL_GROWTH) for share in jitter]  # the share is of a box a little larger
    assert jitter[0] - slack[0] <= np.min(moved)
    assert np.max(moved) <= jitter[1] + slack[1]
    if jitter[0] < jitter[1]:
        assert np.ptp(moved, axis=0).min() > 0.5 * min(jitter[1] - jitter[0], 0.2)


def test_jitter_in_pixels_of_the_published_frame() -> None:
    gts = np.zeros((512, 512), np.int32)
    gts[80:310, 90:330] = 1
    (sample,) = samples(labelled(gts))
    pixel = max(sample.field.height, sample.field.width) / 256
    config = FinetuneConfig(jitter_px=(0.0, 20.0))
    bbox = np.array(bbox_of(gts == 1))
    moved = []
    for epoch in range(60):
        (box,) = boxes_of_epoch([sample], config, epoch)
        moved.append((box.array() - bbox) * np.array([-1, -1, 1, 1]) / pixel)
    assert np.min(moved) > -0.5
    assert 18 < np.max(moved) < 20.5


def test_an_edge_that_the_field_cut_stays_there() -> None:
    gts = np.zeros((256, 256), np.int32)
    gts[20:250, 20:250] = 1
    found = samples(labelled(gts), detail=4)
    assert len(found) > 4
    config = FinetuneConfig(detail=4, jitter=(-0.3, 0.3))
    for epoch in range(5):
        for sample, box in zip(found, boxes_of_epoch(found, config, epoch), strict=True):
            field, fit = sample.field, sample.box
            ends = (field.row, field.col, field.row + field.height, field.col + field.width)
            for edge, before, end in zip(box.array(), fit.array(), ends, strict=True):
                if before == end:
                    assert edge == end
    middle = next(sample for sample in found if sample.box == Box(64, 64, 128, 128))
    assert boxes_of_epoch([middle], config, 1) == [middle.box]


# views


def test_the_eight_views_differ_and_labels_follow_the_pixels() -> None:
    gts = np.zeros((64, 80), np.int32)
    gts[5:40, 7:30] = 1
    gts[5:10, 7:70] = 1
    case = labelled(gts)
    case.imgs[gts == 1] = 255
    case.imgs[gts == 0] //= 2
    views = [turned(case.imgs, view).tobytes() for view in range(VIEWS)]
    assert len(set(views)) == VIEWS
    found = samples(case, LITE, views=VIEWS)
    assert len(found) == VIEWS
    for view, sample in enumerate(found):
        pixels = np.asarray(sample.image.levels[0])
        assert pixels.tobytes() == views[view]
        bright = target_on(pixels[..., 0] == 255, sample.field, LITE)
        np.testing.assert_array_equal(sample.target, bright)
        r0, c0, r1, c1 = bbox_of(turned(gts, view)) or (0, 0, 0, 0)
        assert sample.box.array() == pytest.approx([r0, c0, r1, c1], abs=3)
    assert len({sample.target.tobytes() for sample in found}) == VIEWS
    np.testing.assert_array_equal(turned(gts, 0), gts)
