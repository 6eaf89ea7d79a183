"""Files that are damaged, swapped or made to harm: each is named, none runs, none takes much memory."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.curation.case import Case
from napari_medsam.curation.case_files import read_case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.npz import read_headers, read_npz
from napari_medsam.errors import CaseError

MakeCase = Callable[..., Case]


@pytest.fixture
def folder(make_case: MakeCase, tmp_path: Path) -> Path:
    data = CuratedDataset(tmp_path / "set", create=True)
    data.append(make_case(0))
    data.append(make_case(1))
    return data.path


@pytest.fixture
def victim(folder: Path) -> Path:
    return sorted(folder.glob("*.npz"))[0]


def only_problem(folder: Path, victim: Path) -> str:
    """The single problem of the folder, which must be about the victim; reading it must fail the same way."""
    (problem,) = CuratedDataset(folder).validate()
    assert problem.file.stem == victim.stem
    assert problem.next_step
    with pytest.raises(CaseError) as error:
        read_case(victim)
    assert str(problem.file) in str(error.value)
    return problem.what


def rewrite(npz: Path, **changes: np.ndarray | None) -> None:
    with np.load(npz) as old:
        arrays = dict(old)
    arrays.update({k: v for k, v in changes.items() if v is not None})
    np.savez_compressed(
        npz, **{k: v for k, v in arrays.items() if k not in changes or changes[k] is not None}
    )


def edit(npz: Path, **changes: Any) -> None:
    path = npz.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def npy(header: dict[str, Any], payload: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + payload


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated(folder: Path, victim: Path, kept: float) -> None:
    content = victim.read_bytes()
    victim.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    assert "cannot be read" in only_problem(folder, victim)


def test_flipped_bits_anywhere(victim: Path) -> None:
    """Whatever byte is hit, the case reads as before or is refused by name; never something else."""
    content = victim.read_bytes()
    wanted = read_case(victim)
    refused = 0
    for place in range(0, len(content), len(content) // 150):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        victim.write_bytes(bytes(damaged))
        try:
            found = read_case(victim)
        except CaseError:
            refused += 1
            continue
        np.testing.assert_array_equal(found.imgs, wanted.imgs)
        np.testing.assert_array_equal(found.gts, wanted.gts)
    assert refused > 130


def test_missing_npz(folder: Path, victim: Path) -> None:
    victim.unlink()
    (problem,) = CuratedDataset(folder).validate()
    assert problem.file == victim
    assert "is missing" in problem.what
    assert len(CuratedDataset(folder)) == 1
    with pytest.raises(CaseError, match="missing"):
        read_case(victim)


def test_swapped_content(folder: Path, victim: Path) -> None:
    other = sorted(folder.glob("*.npz"))[1]
    shutil.copy(other, victim)
    assert "content hash" in only_problem(folder, victim)


@pytest.mark.parametrize("name", ["imgs", "gts", "predictions"])
def test_changed_array(folder: Path, victim: Path, name: str) -> None:
    with np.load(victim) as npz:
        array = npz[name].copy()
    array[array.shape[0] // 2, 1] += 1
    rewrite(victim, **{name: array})
    what = only_problem(folder, victim)
    assert "content hash" in what or "without an object" in what


@pytest.mark.parametrize("name", ["boxes", "spacing"])
def test_changed_derived_array(folder: Path, victim: Path, name: str) -> None:
    with np.load(victim) as npz:
        array = npz[name] + 1
    rewrite(victim, **{name: array})
    assert f"{name} do not follow" in only_problem(folder, victim)


def test_label_without_object(folder: Path, victim: Path) -> None:
    with np.load(victim) as npz:
        gts = npz["gts"].copy()
    gts[0, 0] = 77
    rewrite(victim, gts=gts)
    assert "labels [77] without an object" in only_problem(folder, victim)


def test_object_without_label(folder: Path, victim: Path) -> None:
    with np.load(victim) as npz:
        gts = npz["gts"]
    rewrite(victim, gts=np.where(gts == 2, 0, gts).astype(gts.dtype))
    assert "objects [2] have no pixel" in only_problem(folder, victim)


@pytest.mark.parametrize(
    "changes",
    [
        {"objects": "x"},
        {"objects": [1]},
        {"objects": []},
        {"spacing": None},
        {"spacing": ["a", "b"]},
        {"source": []},
        {"model": None},
        {"group": 3},
        {"content_sha256": 5},
        {"content_sha256": "0" * 64},
        {"image_sha256": "0" * 64},
        {"unit": "cm"},
        {"classes": None},
        {"version": "1"},
        {"version": True},
        {"version": 2},
        {"format": "other"},
    ],
)
def test_changed_sidecar(folder: Path, victim: Path, changes: dict[str, Any]) -> None:
    edit(victim, **changes)
    assert only_problem(folder, victim)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label", "1"),
        ("label", True),
        ("class_name", 4),
        ("corrected", "yes"),
        ("predicted", None),
        ("predicted_iou", "high"),
        ("box", [1, 2, "3", 4]),
        ("box", 5),
        ("prompts", []),
        ("source_label", []),
    ],
)
def test_changed_object_in_sidecar(folder: Path, victim: Path, key: str, value: Any) -> None:
    objects = json.loads(victim.with_suffix(".json").read_text())["objects"]
    objects[0][key] = value
    edit(victim, objects=objects)
    assert only_problem(folder, victim)
    del objects[0][key]
    edit(victim, objects=objects)
    assert only_problem(folder, victim)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": NaN}', "[" * 100_000, "\udcff"])
def test_broken_sidecar(folder: Path, victim: Path, text: str) -> None:
    victim.with_suffix(".json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert only_problem(folder, victim)
    assert len(CuratedDataset(folder)) == 2, "a damaged case is not silently left out"


def test_unknown_array_is_pointed_out_and_ignored(folder: Path, victim: Path) -> None:
    rewrite(victim, notes=np.array("x"))
    (problem,) = CuratedDataset(folder).validate()
    assert "'notes'" in problem.what
    read_case(victim)


def test_missing_array(folder: Path, victim: Path) -> None:
    rewrite(victim, predictions=None)
    assert "lacks the arrays ['predictions']" in only_problem(folder, victim)


@pytest.mark.parametrize("bad", [[[1, 0, 10**9]], [[1, -5, 3]], [[1, 2**62, 2**62]]])
def test_prediction_that_leaves_the_image(victim: Path, bad: list[list[int]]) -> None:
    rewrite(victim, predictions=np.array(bad, np.int64))
    with pytest.raises(CaseError, match="leaves the image"):
        read_case(victim)
    rewrite(victim, predictions=np.zeros((1, 2)))
    with pytest.raises(CaseError, match="predictions have shape"):
        read_case(victim)


class Bomb:
    """Unpickling this writes a file: proof that something was executed."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("name", ["imgs", "extra"])
@pytest.mark.parametrize("own", [True, False])
def test_pickled_objects_are_never_executed(folder: Path, victim: Path, name: str, own: bool) -> None:
    target = folder.parent / "executed"
    rewrite(victim, **{name: np.array([Bomb(target)], object)})
    if not own:
        victim.with_suffix(".json").unlink()
    problems = [str(p) for p in CuratedDataset(folder).validate()]
    assert any("pickled Python objects" in p for p in problems)
    with pytest.raises(CaseError, match="pickled Python objects"):
        read_case(victim)
    assert not target.exists()
    with np.load(victim, allow_pickle=True) as npz:
        npz[name]
    assert target.exists(), "the bomb works, so not setting it off means something"


def test_bare_pickle_is_not_a_npz(folder: Path, victim: Path) -> None:
    target = folder.parent / "executed"
    victim.write_bytes(pickle.dumps(Bomb(target)))
    assert "cannot be read" in only_problem(folder, victim)
    assert not target.exists()


def test_declared_size_is_checked_before_memory_is_asked_for(folder: Path, victim: Path) -> None:
    """8 TiB claimed by a file of a few hundred bytes, and an honest array over a lower limit."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**43,)}
    with zipfile.ZipFile(victim, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", npy(header))
    tracemalloc.start()
    assert "over the limit" in only_problem(folder, victim)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    np.savez_compressed(victim, imgs=np.zeros(10**6, np.uint8))
    with pytest.raises(CaseError, match="over the limit of 999999"):
        read_headers(victim, limit=999_999)
    assert read_npz(victim, ["imgs"], limit=1_000_000)["imgs"].size == 10**6


@pytest.mark.parametrize("shape", [(5,), (500,), (0,), (-1, 5), (2**40, 0)])
def test_shape_that_does_not_fit_the_bytes(folder: Path, victim: Path, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(victim, "w") as archive:
        archive.writestr("imgs.npy", npy(header, b"x" * 50))
    assert only_problem(folder, victim)


def test_members_that_are_no_arrays_or_twice(folder: Path, victim: Path) -> None:
    content = victim.read_bytes()
    with zipfile.ZipFile(victim, "a") as archive:
        archive.writestr("../../evil.py", "x")
    assert "evil.py" in only_problem(folder, victim)
    assert not list(folder.parent.rglob("evil.py"))
    victim.write_bytes(content)
    with zipfile.ZipFile(victim, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("imgs.npy", npy({"descr": "|u1", "fortran_order": False, "shape": (0,)}))
    assert "twice" in only_problem(folder, victim)


@pytest.mark.parametrize(
    "stem", ["../outside", "/etc/passwd", "a\\b", "..", "", "C:x", ".hidden", "a\0b", 7, None]
)
def test_manifest_with_paths_that_leave_the_folder(folder: Path, make_case: MakeCase, stem: Any) -> None:
    outside = CuratedDataset(folder.parent, create=True).append(make_case(7))
    outside.rename(folder.parent / "outside.npz")
    outside.with_suffix(".json").rename(folder.parent / "outside.json")
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["cases"][0]["stem"] = stem
    (folder / "dataset.json").write_text(json.dumps(manifest))
    data = CuratedDataset(folder)
    assert len(data) == 2
    assert all(s.startswith("2D_") for s in data.cases)
    assert any("not a plain file name" in p.what for p in data.validate())
    if isinstance(stem, str):
        with pytest.raises((CaseError, KeyError)):
            data.read(stem)
    data.append(make_case(8))
    assert data.validate() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["cases"][0].pop("objects"),
        lambda m: m["cases"][0].update(classes={"x": 1}),
        lambda m: m["cases"][0].update(group=5),
        lambda m: m["classes"].append("x"),
        lambda m: m["classes"][0].pop("colour"),
        lambda m: m.update(name=None),
        lambda m: m.update(cases=3),
    ],
)
def test_manifest_of_wrong_types_is_rebuilt(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    wanted = CuratedDataset(folder).manifest.cases
    manifest = json.loads((folder / "dataset.json").read_text())
    change(manifest)
    (folder / "dataset.json").write_text(json.dumps(manifest))
    data = CuratedDataset(folder)
    assert data.manifest.cases == wanted
    (problem,) = data.validate()
    assert problem.file.name == "dataset.json"


def test_manifest_that_disagrees_with_a_case(folder: Path) -> None:
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["cases"][0]["content_sha256"] = "0" * 64
    manifest["classes"][0]["name"] = "tumour"
    manifest["cases"].append(manifest["cases"][1])
    (folder / "dataset.json").write_text(json.dumps(manifest))
    whats = [p.what for p in CuratedDataset(folder).validate()]
    assert any("another content hash" in w for w in whats)
    assert any("calls class 1 'cell'" in w for w in whats)
    assert any("more than once" in w for w in whats)


def test_odd_file_names_are_pointed_out(folder: Path) -> None:
    name = "a" * 220 + ".npz"
    np.savez(folder / name, imgs=np.zeros((2, 2), np.uint8), gts=np.ones((2, 2), np.uint8))
    data = CuratedDataset(folder)
    assert len(data) == 2
    assert [p.file.name for p in data.validate()] == [name]
