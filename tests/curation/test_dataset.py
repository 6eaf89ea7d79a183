"""A folder of cases: appending, classes, rebuilding the manifest, published files, counts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam import CuratedDataset as LazyCuratedDataset
from napari_medsam.curation.case import Case
from napari_medsam.curation.case_files import read_case, write_case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.manifest import ClassEntry
from napari_medsam.errors import CaseError

MakeCase = Callable[..., Case]
Snapshot = Callable[[Path], dict[str, bytes]]


def write_published(folder: Path, name: str = "CT_Abd_1", **arrays: np.ndarray) -> Path:
    """A file as the published pre-processing writes it: a volume with two labels, spacing as x, y, z."""
    gts = np.zeros((3, 10, 12), np.uint8)
    gts[:2, 2:6, 3:8], gts[1:, 7:9, 1:4] = 1, 9
    volume = {"imgs": gts * 20, "gts": gts, "spacing": np.array((0.7, 0.8, 5.0))}
    path = folder / f"{name}.npz"
    contents: dict[str, Any] = {**(arrays or volume)}
    np.savez_compressed(path, **contents)
    return path


def test_the_package_offers_it() -> None:
    assert LazyCuratedDataset is CuratedDataset


def test_append_and_read_back(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path / "new" / "set", create=True)
    assert len(data) == 0
    paths = [data.append(make_case(seed)) for seed in range(3)]
    assert data.cases == tuple(sorted(p.stem for p in paths))
    assert data.validate() == []
    found = CuratedDataset(tmp_path / "new" / "set")
    assert found.manifest.name == "set"
    np.testing.assert_array_equal(found[paths[1].stem].imgs, make_case(1).imgs)
    np.testing.assert_array_equal(found[0].imgs, found[data.cases[0]].imgs)
    assert sum(1 for _ in found) == len(found) == 3
    assert [(c.id, c.name) for c in found.classes] == [(1, "cell"), (2, "debris")]
    summary = found.summary()
    assert (summary.cases, summary.objects, summary.corrected, summary.groups) == (3, 9, 3, 1)
    assert summary.classes == {"cell": 6, "debris": 3}


def test_append_twice_is_one_entry_and_the_same_bytes(
    make_case: MakeCase, tmp_path: Path, snapshot: Snapshot
) -> None:
    data = CuratedDataset(tmp_path, create=True)
    path = data.append(make_case())
    before = snapshot(tmp_path)
    assert data.append(make_case(created="2001-01-01T00:00:00+00:00")) == path
    assert snapshot(tmp_path) == before
    moved = replace(make_case().source, layer="renamed", path="/elsewhere/other.tif")
    assert data.append(make_case(source=moved)) == path
    assert snapshot(tmp_path) == before


def test_a_damaged_case_is_written_again(make_case: MakeCase, tmp_path: Path, snapshot: Snapshot) -> None:
    data = CuratedDataset(tmp_path, create=True)
    path = data.append(make_case())
    npz = snapshot(tmp_path)[path.name]
    path.write_bytes(npz[:-100])
    assert data.append(make_case()) == path
    assert snapshot(tmp_path)[path.name] == npz
    assert data.validate() == []


def test_extend_keeps_what_came_before_a_refused_case(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    assert data.extend([]) == []
    with pytest.raises(CaseError, match="no objects"):
        data.extend([make_case(1), make_case(2, objects=()), make_case(3)])
    assert len(CuratedDataset(tmp_path)) == 1
    assert data.validate() == []


def test_replace_drops_older_labels_of_the_same_pixels(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    other = data.append(make_case(1))
    old = data.append(make_case(0))
    case = make_case(0)
    corrected = replace(case, objects=tuple(replace(o, corrected=True) for o in case.objects))
    new = data.append(corrected)
    assert len(data) == 3
    assert data.append(corrected, replace=True) == new
    assert data.cases == tuple(sorted([other.stem, new.stem]))
    assert not old.exists()
    assert data.validate() == []


def test_replace_spares_equal_frames_and_copies(make_case: MakeCase, tmp_path: Path) -> None:
    """A still movie has equal frames, and two files can be copies: none of these is an older version."""
    data = CuratedDataset(tmp_path, create=True)
    source = make_case().source
    places = [
        source,
        replace(source, index=(8, None, None)),
        replace(source, path="copy.tif"),
        replace(source, path=None, index=(8, None, None)),
    ]
    cases = [make_case(source=place, group=str(i)) for i, place in enumerate(places)]
    data.extend(cases, replace=True)
    assert len(data) == 4
    moved = replace(source, path="/other/disk/my cells.tif")
    data.append(make_case(source=moved, group="changed"), replace=True)
    assert len(data) == 4
    assert {entry.group for entry in data.manifest.cases} == {"changed", "1", "2", "3"}
    twice = [make_case(source=source, group=group) for group in "ab"]
    data.extend(twice, replace=True)
    assert {"a", "b"} < {entry.group for entry in data.manifest.cases}, "one call never drops its own"


def test_remove(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    stem = data.append(make_case()).stem
    data.remove(stem)
    assert len(data) == len(CuratedDataset(tmp_path)) == 0
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["dataset.json"]
    with pytest.raises(CaseError, match="no case"):
        data.remove("../x")


def test_classes_keep_name_and_colour(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    data.append(make_case(0), classes=[ClassEntry(1, "cell", "#123456")])
    data.append(make_case(1))
    assert {c.name: c.colour for c in data.classes} == {"cell": "#123456", "debris": "#56b4e9"}
    data.append(make_case(1), classes=[ClassEntry(1, "cell", "#abcdef")])
    assert data.classes[0].colour == "#abcdef"
    case = make_case(2)
    renamed = replace(case, objects=tuple(replace(o, class_name=o.class_name + "s") for o in case.objects))
    with pytest.raises(CaseError, match="class 1 is 'cell' in the dataset, not 'cells'"):
        data.append(renamed)
    assert len(data) == 2
    assert data.validate() == []


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"format": "other"}', "[" * 100_000])
def test_manifest_missing_or_broken_is_rebuilt(
    make_case: MakeCase, tmp_path: Path, snapshot: Snapshot, manifest: str | None
) -> None:
    data = CuratedDataset(tmp_path, create=True)
    data.extend(make_case(seed) for seed in range(3))
    wanted = data.manifest
    (tmp_path / "dataset.json").unlink()
    if manifest is not None:
        (tmp_path / "dataset.json").write_text(manifest)
    before = snapshot(tmp_path)
    found = CuratedDataset(tmp_path)
    assert found.manifest == wanted
    assert snapshot(tmp_path) == before, "reading must not write"
    assert [p.file.name for p in found.validate()] == ["dataset.json"]
    found.append(make_case(9))
    assert len(CuratedDataset(tmp_path)) == 4
    assert found.validate() == []


def test_manifest_behind_the_folder(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    gone = data.append(make_case(0))
    added = write_case(tmp_path, make_case(1))
    gone.unlink()
    gone.with_suffix(".json").unlink()
    found = CuratedDataset(tmp_path)
    assert found.cases == (added.stem,)
    assert found.summary().objects == 3
    whats = [str(p) for p in found.validate()]
    assert any(gone.name in w and "is missing" in w for w in whats)
    assert any(f"does not list '{added.stem}'" in w for w in whats)


def test_a_newer_manifest_is_left_alone(make_case: MakeCase, tmp_path: Path, snapshot: Snapshot) -> None:
    CuratedDataset(tmp_path, create=True).append(make_case())
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**manifest, "version": 99}))
    before = snapshot(tmp_path)
    with pytest.raises(CaseError, match="version 99"):
        CuratedDataset(tmp_path)
    with pytest.raises(CaseError, match="version 99"):
        CuratedDataset(tmp_path, create=True)
    assert snapshot(tmp_path) == before


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="does not exist"):
        CuratedDataset(tmp_path / "nowhere")
    with pytest.raises(CaseError, match="holds no cases"):
        CuratedDataset(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CaseError, match="is not a folder"):
        CuratedDataset(tmp_path / "file", create=True)


def test_unknown_case(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    data.append(make_case())
    with pytest.raises(KeyError):
        data["nothing"]
    with pytest.raises(IndexError):
        data[1]


def test_published_volume(tmp_path: Path) -> None:
    path = write_published(tmp_path)
    case = read_case(path)
    assert case.spacing == (5.0, 0.8, 0.7)
    assert [(o.label, o.class_name, o.predicted, o.box) for o in case.objects] == [
        (1, "unknown", None, None),
        (9, "unknown", None, None),
    ]
    assert case.source.more["provenance"] == "unknown"
    data = CuratedDataset(tmp_path)
    assert data.cases == ("CT_Abd_1",)
    assert data.summary().classes == {"unknown": 2}
    assert data.validate() == []
    assert [p.name for p in tmp_path.iterdir()] == ["CT_Abd_1.npz"]


def test_published_grey_plane_with_boxes(tmp_path: Path) -> None:
    gts = np.zeros((8, 9), np.int32)
    gts[2:4, 5:8] = 1
    boxes = np.array([[5, 2, 7, 3]])
    path = write_published(tmp_path, imgs=gts.astype(np.int64) * 200, gts=gts, boxes=boxes)
    case = read_case(path)
    assert case.imgs.shape == (8, 9, 3)
    assert case.gts.dtype == np.uint8
    assert case.spacing == (1.0, 1.0)
    assert case.objects[0].box == (2.0, 5.0, 4.0, 8.0)
    again = write_case(tmp_path / "ours", case)
    with np.load(again) as npz:
        np.testing.assert_array_equal(npz["boxes"], boxes)


def test_published_files_that_are_no_cases(tmp_path: Path) -> None:
    gts = np.zeros((8, 9), np.uint8)
    bad: dict[str, tuple[dict[str, np.ndarray], str]] = {
        "boxes_only": ({"imgs": np.zeros((8, 9, 3), np.uint8), "boxes": np.zeros((1, 4), int)}, "no gts"),
        "floats": ({"imgs": gts.astype(float), "gts": gts}, "imgs are float64"),
        "bright": ({"imgs": gts + np.uint16(300), "gts": gts}, "outside 0..255"),
        "other_grid": ({"imgs": gts[1:], "gts": gts}, "imgs have shape"),
        "float_labels": ({"imgs": gts, "gts": gts * 0.5}, "gts are float64"),
        "negative": ({"imgs": gts, "gts": gts - np.int64(1)}, "outside 0..65535"),
        "NaN_spacing": ({"imgs": gts, "gts": gts, "spacing": np.array([np.nan, 1.0])}, "spacing"),
        "text_spacing": ({"imgs": gts, "gts": gts, "spacing": np.array("mm")}, "spacing is"),
        "empty": ({"imgs": gts[:0], "gts": gts[:0]}, "gts have shape"),
    }
    for name, (arrays, _) in bad.items():
        write_published(tmp_path, name, **arrays)
    write_published(tmp_path, "unlabelled", imgs=gts, gts=gts)
    problems = {p.file.stem: str(p) for p in CuratedDataset(tmp_path).validate()}
    assert set(problems) == {*bad, "unlabelled"}
    for name, (_, message) in bad.items():
        assert message in problems[name]
    assert read_case(tmp_path / "unlabelled.npz").objects == ()


def test_published_and_own_cases_side_by_side(make_case: MakeCase, tmp_path: Path) -> None:
    write_published(tmp_path)
    write_published(tmp_path, "dataset")  # its sidecar would be the manifest
    data = CuratedDataset(tmp_path, create=True)
    data.append(make_case())
    assert len(data) == 3
    assert data.summary().objects == 7
    assert [e.stem for e in data.manifest.cases] == [s for s in data.cases if s.startswith("2D_")]
    assert data.validate() == []


APPEND = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, sys.argv[1])
from conftest import build_case
from napari_medsam.curation.dataset import CuratedDataset
data = CuratedDataset(sys.argv[2], create=True)
print("ready", flush=True)
sys.stdin.readline()
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    data.append(build_case(seed))
"""


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    """They overlap in two cases; all ten must be whole and listed once."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(Path(__file__).parent), str(tmp_path), *span],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for span in (("0", "6"), ("4", "10"))
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    for run in runs:
        run.communicate(timeout=120)
        assert run.returncode == 0
    data = CuratedDataset(tmp_path)
    assert len(data) == len(data.manifest.cases) == 10
    listed = json.loads((tmp_path / "dataset.json").read_text())["cases"]
    assert len(listed) == 10, "the manifest on disk must not have lost an entry"
    assert data.validate() == []


def test_threads_append_at_once(make_case: MakeCase, tmp_path: Path) -> None:
    data = CuratedDataset(tmp_path, create=True)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            CuratedDataset(tmp_path).append(make_case(seed))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    data.refresh()
    assert len(data) == 4


def test_a_stuck_lock_is_said(make_case: MakeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    data = CuratedDataset(tmp_path, create=True)
    monkeypatch.setattr("napari_medsam.curation.dataset.LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".dataset.lock"), pytest.raises(CaseError, match="another process"):
        data.append(make_case())
    data.append(make_case())
    assert len(data) == 1
