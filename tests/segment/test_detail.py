"""Large objects field by field."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medsam import Segmenter, load_model
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding
from napari_medsam.errors import PromptError
from napari_medsam.evaluate.metrics import dice_coefficient
from napari_medsam.geometry import Box, bbox_of
from napari_medsam.image.contrast import Window
from napari_medsam.image.field import Field, Frame, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.detail import (
    Blend,
    detail_fields,
    detail_side,
    field_weights,
)
from napari_medsam.segment.fields import FieldPolicy

POLICY = FieldPolicy()
SHAPE = (400, 500)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, tuple[int, int], int]:
    height, width = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    r0, c0 = draw(st.floats(0, height - 0.5)), draw(st.floats(0, width - 0.5))
    box = Box(r0, c0, draw(st.floats(r0 + 0.4, height)), draw(st.floats(c0 + 0.4, width)))
    return box, (height, width), draw(st.integers(2, 6))


@given(boxes())
def test_the_fields_cover_the_box_and_lie_in_the_plane(drawn: tuple[Box, tuple[int, int], int]) -> None:
    box, shape, detail = drawn
    fields = detail_fields(box, shape, detail, POLICY)
    if not fields:
        return
    assert len(set(fields)) == len(fields) > 1
    for field in fields:
        part = box.intersect(field.box)
        assert part.r1 > part.r0
        assert part.c1 > part.c0
        assert 0 <= field.row <= field.row + field.height <= shape[0]
        assert 0 <= field.col <= field.col + field.width <= shape[1]
    # A field for each row stretch and each column stretch: their product is covered when both axes are.
    rows = {(field.row, field.row + field.height) for field in fields}
    cols = {(field.col, field.col + field.width) for field in fields}
    assert len(fields) == len(rows) * len(cols)
    for stretches, start, stop in ((sorted(rows), box.r0, box.r1), (sorted(cols), box.c0, box.c1)):
        assert stretches[0][0] <= start
        assert stretches[-1][1] >= stop
        assert all(after[0] < before[1] for before, after in pairwise(stretches))


@pytest.mark.parametrize(
    ("box", "detail", "side"),
    [
        (Box(0, 0, 960, 999), 2, 512),
        (Box(0, 0, 960, 999), 4, 256),
        (Box(0, 0, 960, 999), 32, 32),
        (Box(10, 10, 20, 210), 5, 32),
        (Box(10, 10, 20, 210), 2, 128),
    ],
)
def test_sides_are_powers_of_two_near_the_longer_side_over_the_detail(
    box: Box, detail: int, side: int
) -> None:
    assert detail_side(box, detail, POLICY) == side
    for field in detail_fields(box, (4000, 4000), detail, POLICY):
        assert (field.height, field.width, field.kind) == (side, side, "grid")
        assert field.row % (side // 2) == field.col % (side // 2) == 0


def test_the_smallest_side_holds_whatever_the_policy() -> None:
    assert detail_side(Box(0, 0, 200, 200), 32, FieldPolicy(smallest=100)) == 128


def test_overlapping_boxes_share_fields() -> None:
    first = detail_fields(Box(100, 100, 700, 700), (4000, 4000), 3, POLICY)
    second = detail_fields(Box(330, 300, 910, 930), (4000, 4000), 3, POLICY)
    assert len(set(first) & set(second)) >= 4


def test_small_boxes_and_detail_1_are_not_divided() -> None:
    assert detail_fields(Box(0, 0, 400, 500), SHAPE, 1, POLICY) == []
    assert detail_fields(Box(10, 10, 40, 35), SHAPE, 4, POLICY) == []


@pytest.mark.parametrize("detail", [0, -1, 33, 2.0, True, "2"])
def test_other_details_are_refused(model: Any, detail: Any) -> None:
    with pytest.raises(PromptError, match="whole number from 1"):
        Segmenter(model).segment(np.zeros(SHAPE, np.uint8), [[0, 0, 400, 500]], detail=detail)
    with pytest.raises(PromptError, match="whole number from 1"):
        Segmenter(model).segment(np.zeros(SHAPE, np.uint8), [], detail=detail)
    assert model.encoded == []


# blending


def _embedding(field: Field, plane: Plane) -> Embedding:
    features = np.zeros((256, 64, 64), np.float16)
    return Embedding(repr(field), features, field, Window(((0, 1),), (0,)), plane, True)


class Painted:
    """A model whose logits show a picture of the whole plane, cut to the field it is shown."""

    def __init__(self, picture: Any, iou: float = 0.5) -> None:
        self.frame = Frame(256)
        self.picture, self.iou = picture, iou
        self.field = Field(0, 0, 1, 1)

    def decode(self, _features: Any, _boxes: np.ndarray, *, key: str) -> Any:
        assert key
        rows, cols = ((np.arange(256) + 0.5) / scale for scale in self.frame.scale(self.field))
        logits = self.picture(rows[:, None] + self.field.row, cols[None] + self.field.col)
        logits = np.broadcast_to(logits, (1, 256, 256)).astype(np.float32)
        return SimpleNamespace(logits=logits, iou=np.array([self.iou], np.float32))

    def show(self, field: Field, blend: Blend) -> None:
        self.field = field
        blend.add(self, _embedding(field, Plane.from_array(np.zeros(SHAPE, np.uint8))))  # type: ignore[arg-type]


def _blended(model: Painted, fields: list[Field], box: Box) -> Blend:
    blend = Blend(box, fields, SHAPE)
    for field in fields:
        model.show(field, blend)
    return blend


LARGE = Box(20, 30, 390, 480)


@pytest.mark.parametrize("detail", [2, 3, 4])
def test_constant_logits_stay_constant(detail: int) -> None:
    fields = detail_fields(LARGE, SHAPE, detail, POLICY)
    for level in (-1.5, 2.5):
        blend = _blended(Painted(lambda r, c, level=level: level + 0 * (r + c)), fields, LARGE)
        np.testing.assert_allclose(blend.logits(), level, rtol=1e-5)
        assert blend.prediction().area == (blend.field.height * blend.field.width if level > 0 else 0)


def test_a_smooth_picture_has_no_seams() -> None:
    fields = detail_fields(LARGE, SHAPE, 3, POLICY)
    blend = _blended(Painted(lambda r, c: (r - 200.3) / 50 + 0 * c), fields, LARGE)
    rows = np.arange(blend.field.height)[:, None] + blend.field.row + 0.5
    np.testing.assert_allclose(
        blend.logits(), np.broadcast_to((rows - 200.3) / 50, blend.logits().shape), atol=0.02
    )
    prediction = blend.prediction()
    assert prediction.mask.all()
    assert prediction.row == 200


def test_the_order_of_fields_does_not_matter() -> None:
    fields = detail_fields(LARGE, SHAPE, 3, POLICY)
    # Each field says something else, so that the blend has something to settle.
    noise = {field: np.random.default_rng(n).normal() for n, field in enumerate(fields)}
    model = Painted(lambda r, c: noise[model.field] + np.sin(r / 9) + np.cos(c / 7))
    first = _blended(model, fields, LARGE)
    second = _blended(model, [fields[n] for n in np.random.default_rng(1).permutation(len(fields))], LARGE)
    np.testing.assert_allclose(first.logits(), second.logits(), atol=1e-5)
    assert first.prediction().key == second.prediction().key
    assert first.field == second.field
    settled = np.abs(first.logits()) > 1e-4
    masks = [blend.prediction().full(SHAPE)[_inside(blend.field)] for blend in (first, second)]
    np.testing.assert_array_equal(masks[0][settled], masks[1][settled])


def _inside(field: Field) -> tuple[slice, slice]:
    return np.s_[field.row : field.row + field.height, field.col : field.col + field.width]


def test_weights_fall_smoothly_and_never_to_zero() -> None:
    for length in (1, 2, 33, 512):
        weights = field_weights(length)
        assert weights.min() > 0
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)
        assert np.abs(np.diff(weights)).max(initial=0) <= 4 / length


def test_iou_is_the_mean_by_the_boxs_area_in_each_field() -> None:
    fields = [Field(0, 0, 64, 64, "grid"), Field(0, 32, 64, 64, "grid")]
    box = Box(0, 0, 40, 90)  # 40 x 64 in the first, 40 x 58 in the second
    blend = Blend(box, fields, SHAPE)
    Painted(lambda r, c: 1 + 0 * (r + c), 0.5).show(fields[0], blend)
    assert blend.prediction().iou == pytest.approx(0.5)
    Painted(lambda r, c: 1 + 0 * (r + c), 0.9).show(fields[1], blend)
    assert blend.prediction().iou == pytest.approx((0.5 * 64 + 0.9 * 58) / (64 + 58))
    assert blend.prediction().field == Field(0, 0, 64, 96, "grid")


def test_a_field_that_is_not_awaited_is_refused() -> None:
    fields = detail_fields(LARGE, SHAPE, 2, POLICY)
    model = Painted(lambda r, c: 0 * (r + c))
    blend = _blended(model, fields, LARGE)
    with pytest.raises(ValueError, match="not awaited"):
        model.show(fields[0], blend)


# streaming


def test_fields_come_one_by_one_and_can_be_stopped(model: Any) -> None:
    segmenter, plane = Segmenter(model), Plane.from_array(np.zeros(SHAPE, np.uint8))
    fields = detail_fields(LARGE, SHAPE, 2, POLICY)
    blend = Blend(LARGE, fields, SHAPE)
    assert blend.prediction().area == 0
    areas = []
    for number, field in enumerate(fields, start=1):
        blend.add(model, segmenter.embed(plane, "auto", field))
        assert (blend.done, len(model.encoded)) == (number, number)
        areas.append(blend.prediction().area)
        assert np.isinf(blend.logits()).any() == (_covered(fields[:number], blend.field) < 1)
        if number == 3:
            break
    assert len(model.encoded) == 3 < len(fields)
    assert areas == sorted(areas)
    assert areas[0] > 0
    assert list(blend.awaited) == fields[3:]


def _covered(fields: list[Field], around: Field) -> float:
    plane = np.zeros(SHAPE, bool)
    for field in fields:
        plane[_inside(field)] = True
    return float(plane[_inside(around)].mean())


# through the public API


@pytest.mark.parametrize("detail", [2, 3, 5, 8])
@pytest.mark.parametrize("box", [[0, 0, 400, 500], [33.5, 41, 377, 452], [10, 5, 30, 490], [100, 0, 400, 90]])
def test_the_detailed_mask_of_a_box_is_the_box(model: Any, detail: int, box: list[float]) -> None:
    image = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    (prediction,) = Segmenter(model).predict(Plane.from_array(image), [box], detail=detail)
    r0, c0, r1, c1 = box
    inner, outer = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    inner[int(r0) + 1 : int(r1) - 1, int(c0) + 1 : int(c1) - 1] = True
    outer[max(int(r0) - 1, 0) : int(r1) + 2, max(int(c0) - 1, 0) : int(c1) + 2] = True
    found = prediction.full(SHAPE)
    assert not (inner & ~found).any()
    assert not (found & ~outer).any()
    assert prediction.iou == pytest.approx(0.9)
    assert prediction.field.box.contains(Box(*box))
    assert prediction.box == Box(*box)
    assert prediction.mask.any(axis=0)[[0, -1]].all()
    assert prediction.mask.any(axis=1)[[0, -1]].all()


@pytest.mark.parametrize("frame", [Frame(1024), Frame(1024, squash=True, resample="bicubic")])
def test_frames_of_other_sizes(model: Any, frame: Frame) -> None:
    model.frame = frame
    mask = Segmenter(model).segment(np.zeros(SHAPE, np.uint8), [[50, 60, 350, 440]], detail=3)[0]
    expected = np.zeros(SHAPE, bool)
    expected[50:350, 60:440] = True
    assert dice_coefficient(mask, expected) > 0.985


@pytest.mark.parametrize("field", ["auto", "whole"])
def test_detail_1_changes_nothing(model: Any, field: str) -> None:
    plane = Plane.from_array(np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8))
    wanted = [[20, 40, 60, 80], [0, 0, 400, 500]]
    for today, off in zip(
        Segmenter(model).predict(plane, wanted, field=field),
        Segmenter(model).predict(plane, wanted, field=field, detail=1),
        strict=True,
    ):
        np.testing.assert_array_equal(today.mask, off.mask)
        assert (today.row, today.col, today.iou, today.key, today.field) == (
            off.row, off.col, off.iou, off.key, off.field,
        )  # fmt: skip


def test_divided_and_undivided_boxes_keep_their_order_and_share_embeddings(
    model: Any, tmp_path: Path
) -> None:
    plane = Plane.from_array(np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8))
    small, large = [60, 60, 80, 85], [0, 0, 400, 500]
    predictions = Segmenter(model).predict(plane, [small, large, small, large], detail=2)
    assert [prediction.box for prediction in predictions] == [Box(*b) for b in (small, large, small, large)]
    assert [prediction.field.kind for prediction in predictions] == ["centred", "whole", "centred", "whole"]
    assert predictions[1].field == whole_field(SHAPE)
    fields = detail_fields(Box(*large), SHAPE, 2, POLICY)
    assert len(model.encoded) == len(fields) + 1
    keeping = Segmenter(model, EmbeddingCache(tmp_path))
    keeping.predict(plane, [large], detail=2)
    before = len(model.encoded)
    again = Segmenter(model, EmbeddingCache(tmp_path)).predict(plane, [large], detail=2)
    assert len(model.encoded) == before
    assert again[0].key == predictions[1].key


class Recorder:
    """A plane too large to exist; notes what is read of it."""

    shape, dtype, ndim = (200_000, 200_000), np.dtype(np.uint8), 2

    def __init__(self) -> None:
        self.read: list[tuple[int, int, int, int]] = []

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, cols = index
        self.read.append((rows.start, cols.start, rows.stop, cols.stop))
        return np.full((rows.stop - rows.start, cols.stop - cols.start), 7, np.uint8)


def test_of_a_huge_plane_only_the_fields_are_read(model: Any) -> None:
    data, box = Recorder(), Box(100_000, 120_000, 100_900, 120_700)
    plane = Plane.from_array(data)
    (prediction,) = Segmenter(model).predict(plane, [box], contrast="0,255", detail=3)
    fields = detail_fields(box, plane.shape, 3, POLICY)
    assert len(model.encoded) == len(fields) < 60
    read = np.array(data.read)
    assert read[:, :2].min(axis=0).tolist() == [min(f.row for f in fields), min(f.col for f in fields)]
    pixels = np.prod(read[:, 2:] - read[:, :2], axis=1).sum()
    assert pixels == sum(field.height * field.width for field in fields)
    assert prediction.mask.shape == pytest.approx((900, 700), abs=3)
    assert (prediction.row, prediction.col) == pytest.approx((100_000, 120_000), abs=2)
    assert max(prediction.field.height, prediction.field.width) < 1500


def test_the_built_in_model_finds_a_coin_in_four_fields() -> None:
    from PIL import Image
    from scipy import ndimage
    from skimage.data import coins
    from skimage.filters import threshold_otsu

    image = np.asarray(coins())
    labels, count = ndimage.label(ndimage.binary_fill_holes(image > threshold_otsu(image)))
    round_ones = [n for n in range(1, count + 1) if abs(np.subtract(*_sides(labels == n))) < 9]
    coin = labels == max(round_ones, key=lambda n: int((labels == n).sum()))
    r0, c0, r1, c1 = bbox_of(coin) or (0, 0, 0, 0)
    around = np.s_[r0 - 1 : r1 + 1, c0 - 1 : c1 + 1]
    image, coin = (np.asarray(Image.fromarray(a[around]).resize((96, 96))) for a in (image, coin))
    segmenter = load_model("lite-medsam", device="cpu", cache=None, backend="torch")
    box = Box(*(float(edge) for edge in bbox_of(coin) or ()))
    assert len(detail_fields(box, (96, 96), 2, POLICY)) == 4
    (prediction,) = segmenter.predict(Plane.from_array(image), [box], detail=2)
    assert prediction.field == whole_field((96, 96))
    assert dice_coefficient(prediction.full((96, 96)), coin) > 0.9
    assert 0 < prediction.iou <= 1


def _sides(mask: np.ndarray) -> tuple[int, int]:
    r0, c0, r1, c1 = bbox_of(mask) or (0, 0, 0, 0)
    return r1 - r0, c1 - c0
