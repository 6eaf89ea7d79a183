"""Sides that stay when cases are added, copies of an image on one side, and runs that go on where they were."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from training_files import disc, folders, grey, run_curate

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import read_split

CURATE = Path(__file__).parents[2] / "training" / "curate.py"
MASK = disc((48, 48), 12)


def save(root: Path, stem: str, seed: int, suffix: str = "png") -> None:
    images, masks, _ = folders(root)
    (images / stem).parent.mkdir(parents=True, exist_ok=True)
    (masks / stem).parent.mkdir(parents=True, exist_ok=True)
    if suffix == "tif":
        tifffile.imwrite(images / f"{stem}.tif", grey(seed, MASK).astype("u2"))
    else:
        Image.fromarray(grey(seed, MASK)).save(images / f"{stem}.{suffix}")
    Image.fromarray(MASK.astype("u1")).save(masks / f"{stem}.png")


def table(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "dataset" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def sides(root: Path) -> dict[str, str]:
    return {row["key"]: row["side"] for row in table(root, "curation/cases.csv")}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_sides_stay_when_cases_are_added_and_groups_are_whole(tmp_path: Path) -> None:
    for number in range(30):
        save(tmp_path, f"p{number:02d}/frame-0", number)
        save(tmp_path, f"p{number:02d}/frame-1", 100 + number)
    assert run_curate(tmp_path, "--group", r"^(p\d+)/") == 0
    before = sides(tmp_path)
    assert {before[f"p{n:02d}/frame-0"] == before[f"p{n:02d}/frame-1"] for n in range(30)} == {True}
    assert set(before.values()) == {"train", "val", "test"}
    for number in range(30, 45):
        save(tmp_path, f"a{number}/frame-0", number)
    assert run_curate(tmp_path, "--group", r"^([ap]\d+)/") == 0
    after = sides(tmp_path)
    assert len(after) == 75
    assert {key: after[key] for key in before} == before
    dataset = CuratedDataset(tmp_path / "dataset")
    split = read_split(tmp_path / "dataset" / "split.csv", dataset.cases)
    assert len(split.train) + len(split.val) + len(split.test) == 75
    assert dataset.validate() == []


def test_copies_of_an_image_are_found_whatever_their_format_and_kept_together(tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path, f"one-{number:02d}", number)
        save(tmp_path, f"two-{number:02d}", number, "tif")
    assert run_curate(tmp_path) == 0
    rows = {row["key"]: row for row in table(tmp_path, "curation/cases.csv")}
    assert len({row["side"] for row in rows.values()}) == 3
    for number in range(40):
        assert rows[f"one-{number:02d}"]["side"] == rows[f"two-{number:02d}"]["side"]
        assert rows[f"two-{number:02d}"]["same_pixels_as"] == f"us-lesion/one-{number:02d}"


def test_a_table_gives_sides_and_never_parts_copies(tmp_path: Path) -> None:
    for number, seed in enumerate([0, 1, 2, 0, 4]):
        save(tmp_path, f"case-{number}", seed)
    given = tmp_path / "sides.csv"
    given.write_text("stem,side\ncase-0,train\ncase-1,train\ncase-2,val\ncase-3,test\nnobody,test\n")
    assert run_curate(tmp_path, "--split", str(given)) == 0
    assert sides(tmp_path) == {
        "case-0": "",
        "case-1": "train",
        "case-2": "val",
        "case-3": "test",
        "case-4": "",
    }
    kinds = {row["name"]: row["kind"] for row in table(tmp_path, "curation/left_out.csv")}
    assert kinds == {
        "case-0.png": "copy-on-two-sides",
        "case-4.png": "not-in-split",
        "nobody": "not-in-folder",
    }
    assert sorted(row["side"] for row in table(tmp_path, "split.csv")) == ["test", "train", "val"]


@pytest.mark.parametrize("text", ["case-0,judge\n", "case-0\n", "case-0,train\ncase-0,test\n"])
def test_a_table_that_makes_no_sense_is_refused_before_anything_is_done(tmp_path: Path, text: str) -> None:
    save(tmp_path, "case-0", 0)
    (tmp_path / "sides.csv").write_text(text)
    assert run_curate(tmp_path, "--split", str(tmp_path / "sides.csv")) == 2
    assert not list(tmp_path.glob("dataset/*.npz"))


def test_groups_from_a_table(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path, f"case-{number}", number)
    (tmp_path / "groups.csv").write_text("key,group\ncase-0,a\ncase-1,a\n")
    assert run_curate(tmp_path, "--group", str(tmp_path / "groups.csv")) == 0
    assert {row["key"]: row["group"] for row in table(tmp_path, "curation/cases.csv")} == {
        "case-0": "a",
        "case-1": "a",
    }
    assert [row["kind"] for row in table(tmp_path, "curation/left_out.csv")] == ["no-group"]


def test_names_pair_by_ending_and_by_rule_and_in_one_folder(tmp_path: Path) -> None:
    images, _, _ = folders(tmp_path)
    for number in range(2):
        Image.fromarray(grey(number, MASK)).save(images / f"scan {number}.png")
        Image.fromarray(MASK.astype("u1")).save(images / f"scan {number}_mask.png")
    where = [str(images), str(images), str(tmp_path / "dataset")]
    from napari_medsam_training.curate import main

    assert main([*where, "--modality", "US", "--target", "lesion", "--quiet"]) == 0
    assert len(CuratedDataset(tmp_path / "dataset")) == 2
    other = tmp_path / "other"
    (other / "masks").mkdir(parents=True)
    (other / "images").mkdir()
    Image.fromarray(grey(0, MASK)).save(other / "images" / "IMG-0007-x.png")
    Image.fromarray(MASK.astype("u1")).save(other / "masks" / "truth 0007.png")
    assert run_curate(other, "--pair", r"(\d{4})") == 0


def test_a_second_run_does_nothing_and_what_changed_is_made_again(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path, f"case-{number:02d}", number)
    assert run_curate(tmp_path, "--shard-size", "3") == 0
    before = snapshot(tmp_path / "dataset")
    assert run_curate(tmp_path, "--shard-size", "3") == 0
    assert snapshot(tmp_path / "dataset") == before
    changed = tmp_path / "masks" / "case-05.png"
    Image.fromarray(disc((48, 48), 15).astype("u1")).save(changed)
    os.utime(changed, (1, 1))
    (tmp_path / "images" / "case-07.png").unlink()
    assert run_curate(tmp_path, "--shard-size", "3") == 0
    dataset = CuratedDataset(tmp_path / "dataset")
    assert dataset.validate() == []
    assert len(dataset) == 11
    (stem,) = [stem for stem in dataset.cases if stem.startswith("2D_case-05_")]
    assert np.count_nonzero(dataset[stem].gts) == np.count_nonzero(disc((48, 48), 15))
    assert len(snapshot(tmp_path / "dataset").keys() - before.keys()) > 0


def test_another_folder_under_the_same_name_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "case", 0)
    save(tmp_path / "other", "case", 1)
    assert run_curate(tmp_path) == 0
    from napari_medsam_training.curate import main

    other = [str(tmp_path / "other" / "images"), str(tmp_path / "other" / "masks"), str(tmp_path / "dataset")]
    assert main([*other, "--modality", "US", "--target", "lesion", "--quiet"]) == 2
    assert main([*other, "--modality", "US", "--target", "lesion", "--quiet", "--name", "second"]) == 0
    assert len(CuratedDataset(tmp_path / "dataset")) == 2


def command(root: Path, *more: str) -> list[str]:
    where = [str(root / "images"), str(root / "masks"), str(root / "dataset")]
    return [sys.executable, str(CURATE), *where, "--modality", "US", "--target", "lesion", "--quiet", *more]


def test_a_kill_costs_one_shard_at_most_and_changes_nothing(tmp_path: Path) -> None:
    for number in range(80):
        save(tmp_path, f"case-{number:02d}", number)
    records = tmp_path / "dataset" / "curation" / "us-lesion" / "records"
    options = ("--shard-size", "4")
    child = subprocess.Popen(command(tmp_path, *options))
    deadline = time.monotonic() + 60
    while len(list(records.glob("*.jsonl"))) < 3 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.kill()
    child.wait()
    done = {path.name: path.stat().st_mtime_ns for path in records.glob("*.jsonl")}
    assert child.returncode != 0
    assert len(done) >= 3
    assert not (tmp_path / "dataset" / "split.csv").exists()
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "dataset").glob("*.npz")}
    assert run_curate(tmp_path, *options) == 0
    assert {name: (records / name).stat().st_mtime_ns for name in done} == done
    assert {name: (tmp_path / "dataset" / name).stat().st_mtime_ns for name in written} == written
    one = snapshot(tmp_path / "dataset")
    (tmp_path / "dataset").rename(tmp_path / "in two goes")
    assert run_curate(tmp_path, *options) == 0
    assert snapshot(tmp_path / "dataset") == one


def test_two_workers_make_the_same_bytes_as_one(tmp_path: Path) -> None:
    for number in range(24):
        save(tmp_path, f"case-{number:02d}", number)
    assert run_curate(tmp_path, "--shard-size", "3") == 0
    one = snapshot(tmp_path / "dataset")
    (tmp_path / "dataset").rename(tmp_path / "by one")
    done = subprocess.run(
        command(tmp_path, "--shard-size", "3", "--workers", "2"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "dataset") == one
