"""One case: what is written, that it comes back, that it is the same each time, and what is refused."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_medsam.curation.case import Case, CaseObject, ContrastRecord, ModelRecord, Prompts, Provenance
from napari_medsam.curation.case_files import content_hash, read_case, write_case
from napari_medsam.errors import CaseError

MakeCase = Callable[..., Case]


def assert_same(found: Case, wanted: Case) -> None:
    np.testing.assert_array_equal(found.imgs, wanted.imgs)
    np.testing.assert_array_equal(found.gts, wanted.gts)
    assert found.spacing == wanted.spacing
    for name in ("field", "group", "unit", "model"):
        assert getattr(found, name) == getattr(wanted, name)
    assert len(found.objects) == len(wanted.objects)
    for a, b in zip(found.objects, wanted.objects, strict=True):
        assert (a.label, a.class_name, a.class_id, a.box) == (b.label, b.class_name, b.class_id, b.box)
        assert (a.corrected, a.predicted_iou, a.prompts) == (b.corrected, b.predicted_iou, b.prompts)
        assert (a.predicted is None) == (b.predicted is None)
        if a.predicted is not None and b.predicted is not None:
            np.testing.assert_array_equal(a.predicted, b.predicted)


@pytest.mark.parametrize("depth", [None, 4])
def test_round_trip(make_case: MakeCase, tmp_path: Path, depth: int | None) -> None:
    case = make_case(depth=depth)
    path = write_case(tmp_path, case)
    found = read_case(path)
    assert_same(found, case)
    assert found.gts.dtype == np.uint8
    assert found.imgs.dtype == np.uint8
    assert found.source.index == (7, None, None)
    assert found.contrast.more["window"] == [-160.0, 240.0]
    assert found.created.endswith("+00:00")
    assert read_case(path.with_suffix(".json")).objects[0].class_name == "cell"
    assert {p.name for p in tmp_path.iterdir()} == {path.name, path.with_suffix(".json").name}


def test_published_arrays_of_a_plane(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path, make_case())
    assert path.stem.startswith("2D_my-cells_7_")
    with np.load(path, allow_pickle=False) as npz:
        assert npz["imgs"].shape[-1] == 3
        # first box: rows 1.5..6.5, columns 1.75..6.75 -> x 1..6, y 1..6, the last pixel included
        np.testing.assert_array_equal(npz["boxes"][0], [1, 1, 6, 6])
        np.testing.assert_array_equal(npz["boxes"][1], [9, 1, 14, 6])
        assert npz["boxes"].dtype == np.int64
        np.testing.assert_array_equal(npz["spacing"], [0.25, 0.5])


def test_published_arrays_of_a_volume(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path, make_case(depth=4))
    assert path.stem.startswith("3D_")
    with np.load(path, allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["boxes"][0], [1, 1, 0, 6, 6, 2])
        np.testing.assert_array_equal(npz["spacing"], [0.25, 0.5, 2.0])
    warnings = json.loads(path.with_suffix(".json").read_text())["warnings"]
    assert len(warnings) == 1
    assert "1 of 4 slices" in warnings[0]


def test_a_volume_on_one_slice_is_warned_about(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path, make_case(depth=2))
    assert any("one slice" in w for w in json.loads(path.with_suffix(".json").read_text())["warnings"])


def test_objects_without_a_box_get_the_tight_one(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case()
    case = replace(case, objects=tuple(replace(o, box=None) for o in case.objects))
    path = write_case(tmp_path, case)
    with np.load(path, allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["boxes"][0], [2, 2, 5, 5])
    assert read_case(path).objects[0].box is None


def test_boxes_are_clipped_to_the_plane(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(count=1)
    case = replace(case, objects=(replace(case.objects[0], box=(-3.0, -0.5, 99.0, 6.0)),))
    path = write_case(tmp_path, case)
    with np.load(path, allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["boxes"][0], [0, 0, 5, 15])
    assert read_case(path).objects[0].box == (-3.0, -0.5, 99.0, 6.0)


def test_3d_box_drawn_in_three_dimensions(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(count=1, depth=4)
    case = replace(case, objects=(replace(case.objects[0], box=(1.0, 1.5, 2.0, 4.0, 6.0, 7.0)),))
    path = write_case(tmp_path, case)
    with np.load(path, allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["boxes"][0], [2, 1, 1, 6, 5, 3])
    assert read_case(path).objects[0].box == (1.0, 1.5, 2.0, 4.0, 6.0, 7.0)


def test_more_than_255_objects(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path, make_case(count=300))
    found = read_case(path)
    assert found.gts.dtype == np.uint16
    assert found.gts.max() == 300
    assert found.objects[299].label == 300
    assert "8 bits" in json.loads(path.with_suffix(".json").read_text())["warnings"][0]
    path = write_case(tmp_path, make_case(count=255))
    assert read_case(path).gts.dtype == np.uint8
    assert json.loads(path.with_suffix(".json").read_text())["warnings"] == []


@pytest.mark.parametrize("high", [400, 2_000_000])
def test_gaps_in_labels_close_and_the_old_label_is_kept(
    make_case: MakeCase, tmp_path: Path, high: int
) -> None:
    case = make_case()
    table = np.array([0, 5, 2, high])
    objects = tuple(replace(o, label=int(table[o.label])) for o in case.objects)
    found = read_case(write_case(tmp_path, replace(case, gts=table[case.gts], objects=objects)))
    assert [(o.label, o.source_label) for o in found.objects] == [(1, 2), (2, 5), (3, high)]
    np.testing.assert_array_equal(found.gts == 1, case.gts == 2)
    np.testing.assert_array_equal(found.gts == 3, case.gts == 3)
    first = found.objects[0].predicted
    assert first is not None
    np.testing.assert_array_equal(first, case.objects[1].predicted)


def test_same_content_same_name_and_bytes(
    make_case: MakeCase, tmp_path: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    path = write_case(tmp_path / "a", make_case())
    before = snapshot(tmp_path / "a")
    stamp = path.stat().st_mtime_ns
    assert write_case(tmp_path / "a", make_case(created="2001-01-01T00:00:00+00:00")) == path
    assert snapshot(tmp_path / "a") == before
    assert path.stat().st_mtime_ns == stamp
    other = write_case(tmp_path / "b", make_case())
    assert other.name == path.name
    assert other.read_bytes() == path.read_bytes()


def test_read_and_written_again_is_the_same(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path / "a", make_case(count=5, depth=3))
    again = write_case(tmp_path / "b", read_case(path))
    assert again.name == path.name
    assert again.read_bytes() == path.read_bytes()
    assert again.with_suffix(".json").read_bytes() == path.with_suffix(".json").read_bytes()


def test_what_counts_as_content(make_case: MakeCase) -> None:
    case = make_case()
    base = content_hash(case)
    source = replace(case.source, layer="renamed", path="elsewhere.tif")
    assert content_hash(replace(case, source=source, created="x")) == base
    gts = case.gts.copy()
    gts[0, 0] = 1
    objects = (replace(case.objects[0], corrected=True), *case.objects[1:])
    other_mask = replace(case.objects[0], predicted=~case.objects[0].predicted)  # type: ignore[operator]
    changed = [
        replace(case, imgs=case.imgs ^ 1),
        replace(case, gts=gts),
        replace(case, objects=objects),
        replace(case, objects=(other_mask, *case.objects[1:])),
        replace(case, spacing=(0.5, 0.5)),
        replace(case, contrast=ContrastRecord("auto")),
        replace(case, field="centred"),
        replace(case, model=ModelRecord()),
        replace(case, group=None),
        replace(case, unit="um"),
        replace(case, source=replace(case.source, index=(8, None, None))),
    ]
    hashes = [content_hash(c) for c in changed]
    assert len({base, *hashes}) == len(changed) + 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_labels_and_predictions_come_back(data: st.DataObject) -> None:
    shape = data.draw(st.one_of(hnp.array_shapes(min_dims=2, max_dims=3, max_side=7)))
    gts = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 6)))
    labels = [int(v) for v in np.unique(gts) if v]
    if not labels:
        gts.flat[0], labels = 1, [1]
    objects = []
    for label in labels:
        predicted = data.draw(st.none() | hnp.arrays(bool, shape))
        iou = data.draw(st.none() | st.floats(0, 1))
        name = data.draw(st.text(min_size=1).filter(str.strip))
        objects.append(CaseObject(label, name, label, None, predicted, data.draw(st.booleans()), iou))
    imgs = data.draw(hnp.arrays(np.uint8, (*shape, 3) if len(shape) == 2 else shape))
    spacing = tuple(data.draw(st.floats(1e-3, 1e3)) for _ in shape)
    group = data.draw(st.none() | st.text())
    case = Case(imgs, gts, spacing, tuple(objects), group=group, source=Provenance(data.draw(st.text())))
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # a new one each time: a layer's name alone makes no new case
        found = read_case(write_case(Path(folder), case))
    np.testing.assert_array_equal(found.imgs, imgs)
    assert (found.spacing, found.group, found.source) == (spacing, group, case.source)
    for item, old in zip(found.objects, objects, strict=True):
        np.testing.assert_array_equal(found.gts == item.label, gts == old.label)
        assert (item.class_name, item.corrected, item.predicted_iou) == (
            old.class_name,
            old.corrected,
            old.predicted_iou,
        )
        assert (item.predicted is None) == (old.predicted is None)
        if old.predicted is not None and item.predicted is not None:
            np.testing.assert_array_equal(item.predicted, old.predicted)


def _first(case: Case, **changes: Any) -> Case:
    return replace(case, objects=(replace(case.objects[0], **changes), *case.objects[1:]))


REFUSED: dict[str, tuple[Callable[[Case], Case], str]] = {
    "float image": (lambda c: replace(c, imgs=c.imgs.astype(float)), "not uint8"),
    "grey plane": (lambda c: replace(c, imgs=c.imgs[..., 0]), "imgs have shape"),
    "other grid": (lambda c: replace(c, gts=c.gts[1:]), "imgs have shape"),
    "float labels": (lambda c: replace(c, gts=c.gts.astype(float)), "not integer labels"),
    "four axes": (lambda c: replace(c, gts=c.gts[None, None]), "gts have shape"),
    "empty": (lambda c: replace(c, imgs=c.imgs[:0], gts=c.gts[:0]), "gts have shape"),
    "NaN spacing": (lambda c: replace(c, spacing=(float("nan"), 1.0)), "spacing"),
    "zero spacing": (lambda c: replace(c, spacing=(0.0, 1.0)), "spacing"),
    "spacing of a volume": (lambda c: replace(c, spacing=(1.0, 1.0, 1.0)), "spacing"),
    "no objects": (lambda c: replace(c, objects=(), gts=c.gts * 0), "no objects"),
    "label without object": (lambda c: replace(c, objects=c.objects[1:]), r"labels \[1\] without an object"),
    "object without label": (lambda c: replace(c, gts=c.gts * (c.gts != 2)), r"objects \[2\] have no pixel"),
    "negative label": (lambda c: replace(c, gts=np.where(c.gts == 0, -1, c.gts)), r"labels \[-1\]"),
    "label twice": (lambda c: replace(c, objects=(*c.objects, c.objects[0])), "more than one object"),
    "label zero": (lambda c: _first(c, label=0), "without an object"),
    "two names": (lambda c: _first(c, class_name="other"), "called both"),
    "nameless class": (lambda c: _first(c, class_name=" "), "without a name"),
    "NaN box": (lambda c: _first(c, box=(0.0, 0.0, float("nan"), 5.0)), "has the box"),
    "box of no area": (lambda c: _first(c, box=(3.0, 0.0, 3.0, 5.0)), "has the box"),
    "box outside": (lambda c: _first(c, box=(3.0, 9000.0, 5.0, 9009.0)), "has the box"),
    "NaN IoU": (lambda c: _first(c, predicted_iou=float("nan")), "predicted IoU nan"),
    "prediction of other shape": (lambda c: _first(c, predicted=np.ones((2, 2), bool)), "predicted mask"),
    "prediction of numbers": (lambda c: _first(c, predicted=c.gts), "predicted mask"),
    "NaN contrast": (
        lambda c: replace(c, contrast=ContrastRecord(limits=((0, float("nan")),))),
        r"contrast\.limits\[0\]\[1\] is nan",
    ),
    "object in source": (lambda c: replace(c, source=Provenance(object())), "source.layer is <object"),
    "number in text": (
        lambda c: replace(c, source=Provenance(3)),
        "source.layer should be a valid string, not 3",
    ),
    "NaN beside": (
        lambda c: replace(c, source=Provenance(more={"a": [float("nan")]})),
        r"source\.a\[0\] is nan",
    ),
    "tuple for a key": (
        lambda c: replace(c, model=ModelRecord(more={(1,): "a"})),
        "model has a key that is not text",
    ),
    "click of text": (
        lambda c: _first(c, prompts=Prompts(((1.0, "2", 1),))),
        r"objects\[0\]\.prompts\.points\[0\]\[1\] should be a valid number, not '2'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_nothing_written(make_case: MakeCase, tmp_path: Path, name: str) -> None:
    change, message = REFUSED[name]
    with pytest.raises(CaseError, match=message) as error:
        write_case(tmp_path, change(make_case()))
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_metadata_may_hold_numpy_values_and_paths(make_case: MakeCase, tmp_path: Path) -> None:
    source = Provenance(path=Path("x") / "y.tif", index=(np.int64(3), None), shape=np.array([4, 5]))
    path = write_case(tmp_path, make_case(source=source))
    assert path.stem.startswith("2D_y_3_")
    assert read_case(path).source.shape == (4, 5)


@pytest.mark.parametrize("name", ["3D scan", "../../evil", "C:\\a\\b.nii.gz", "", "日本", "x" * 400])
def test_names_are_safe_and_say_plane(make_case: MakeCase, tmp_path: Path, name: str) -> None:
    path = write_case(tmp_path, make_case(source=Provenance(name, name)))
    assert path.parent == tmp_path
    assert path.stem.startswith("2D_")
    assert "." not in path.stem
    assert len(path.name) < 100


def test_predictions_can_be_left_packed(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path, make_case())
    assert all(o.predicted is None for o in read_case(path, predictions=False).objects)


def test_an_empty_prediction_is_not_a_missing_one(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case(count=2)
    masks = (np.zeros(case.gts.shape, bool), None)
    objects = tuple(replace(o, predicted=m) for o, m in zip(case.objects, masks, strict=True))
    found = read_case(write_case(tmp_path, replace(case, objects=objects)))
    assert found.objects[0].predicted is not None
    assert not found.objects[0].predicted.any()
    assert found.objects[1].predicted is None


def test_bytes_do_not_depend_on_the_clock(make_case: MakeCase, tmp_path: Path) -> None:
    with zipfile.ZipFile(write_case(tmp_path, make_case())) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
