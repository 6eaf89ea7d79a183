"""The verbs finetune and evaluate: what they print and write, and what they refuse in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from command_line import complaint, run

from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.model.decoder_file import read_info


def disc(seed: int) -> Case:
    """One bright disc on noise, large in its plane: one field for training, judging and evaluating."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:64, :64] + 0.5
    gts = (np.hypot(rows - 32, cols - 30 - seed) < 18).astype(np.int32)
    grey = np.clip(rng.normal(90, 25, gts.shape) + 80 * gts, 0, 255).astype(np.uint8)
    return Case(
        np.repeat(grey[..., None], 3, axis=2),
        gts,
        (1.0, 1.0),
        (CaseObject(1, "cell", 1),),
        source=Provenance(layer=f"disc {seed}"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    CuratedDataset(folder / "cases", create=True).extend([disc(seed) for seed in range(3)])
    return folder


@pytest.fixture(autouse=True)
def own_folders(folder: Path, monkeypatch: pytest.MonkeyPatch, own_caches: None) -> None:
    """One cache for the file: encoding is what takes time."""
    del own_caches  # only to come after it
    monkeypatch.setenv("NAPARI_MEDSAM_CACHE", str(folder / "embeddings"))
    monkeypatch.setenv("NAPARI_MEDSAM_DECODERS", str(folder / "decoders"))


def test_finetune_then_evaluate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases, decoder = folder / "cases", folder / "decoders" / "mine.safetensors"
    decoder.parent.mkdir()
    assert run("finetune", cases, "-o", decoder, "--epochs", 1, "--device", "cpu") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "3 cases, 3 objects; by group: 2 train, 0 val, 1 test; on cpu"
    assert printed[1].startswith("epoch 1/1  loss ")
    assert [line.split()[:2] for line in printed[3:6]] == [
        ["new:", "mine"],
        ["current:", "lite-medsam"],
        ["released:", "lite-medsam"],
    ]
    assert printed[-2].startswith("unsure: Cannot tell: 1 held-out objects")
    assert printed[-1] == f"written: {decoder}"
    info = read_info(decoder)
    assert len(info.cases["train"]) == 2
    assert info.config["epochs"] == 1

    table = folder / "scores.csv"
    words = ("--model", "lite-medsam", "--model", "mine", "--csv", table, "--device", "cpu")
    assert run("evaluate", cases, *words) == 0
    shown = capsys.readouterr()
    assert "mine" in shown.out
    assert f"written: {table}" in shown.err
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "case", "group", "plane", "label", "class", "dsc", "nsd"]
    assert [row["model"] for row in rows] == ["lite-medsam", "mine"] * 3
    assert {row["class"] for row in rows} == {"cell"}
    assert all(0.5 < float(row["dsc"]) <= 1 for row in rows)
    # the same object and box as the verdict: the test side by group and seed
    assert (
        run("evaluate", cases, "--model", decoder, "--split", "test", "--csv", table, "--device", "cpu") == 0
    )
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == info.cases["test"][0]
    assert info.verdict is not None
    assert float(row["dsc"]) == pytest.approx(info.verdict.mean["new"].dsc)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "out.pth"], "ending in .safetensors"),
        (["-o", "no/such/folder/out.safetensors"], "folder that exists"),
        (["-o", "{}/a.safetensors", "--epochs", "0"], "setting epochs is 0"),
        (["-o", "{}/a.safetensors", "--views", "9"], "setting views is 9"),
        (["-o", "{}/a.safetensors", "--detail", "0"], "setting detail is 0"),
        (["-o", "{}/a.safetensors", "--model", "foo"], "Unknown model 'foo'"),
        (["-o", "{}/file/a.safetensors"], "folder that exists"),
    ],
)
def test_finetune_refuses_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("")
    assert run("finetune", folder / "cases", *(word.format(tmp_path) for word in words)) == 1
    assert said in complaint(capsys)
    assert not list(tmp_path.glob("*.safetensors"))


def test_finetune_needs_an_output_and_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("finetune", folder / "cases") == 2
    assert "-o" in complaint(capsys)
    assert run("finetune", folder / "cases", "-o", "a.safetensors", "--epochs", "few") == 2
    assert "--epochs" in complaint(capsys)


def test_finetune_without_a_dataset_or_with_a_bad_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("finetune", tmp_path / "gone", "-o", tmp_path / "a.safetensors", "--device", "cpu") == 1
    assert "gone" in complaint(capsys)
    (tmp_path / "t.csv").write_text("nobody,train\n")
    words = ("-o", tmp_path / "a.safetensors", "--split", tmp_path / "t.csv", "--device", "cpu")
    assert run("finetune", folder / "cases", *words) == 1
    assert "'nobody'" in complaint(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "a", "--model", "a"], "Name each model once"),
        (["--model", "foo"], "Unknown model 'foo'"),
        (["--model", "foo.safetensors"], "no checkpoint file at foo.safetensors"),
        (["--split", "val"], "no cases on the side 'val'"),
        (["--split", "test", "--table", "gone.csv"], "gone.csv cannot be read"),
        (["--table", "gone.csv"], "--table divides"),
        (["--csv", "no/such/folder/out.csv"], "folder that exists"),
    ],
)
def test_evaluate_refuses_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run("evaluate", folder / "cases", *words) == 1
    assert said in complaint(capsys)


def test_evaluate_a_dataset_without_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CuratedDataset(tmp_path / "empty", create=True)
    assert run("evaluate", tmp_path / "empty") == 1
    assert "no cases" in complaint(capsys)
    assert run("evaluate", tmp_path / "empty", "--split", "none") == 2
    assert "--split" in complaint(capsys)
