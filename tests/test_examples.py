"""Every example runs as its docstring says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import tifffile

from napari_medsam import CuratedDataset

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *words: str) -> None:
    runpy.run_path(str(EXAMPLES / name))["main"](*words)


def test_segment_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("segment_sample.py", str(tmp_path / "labels.tif"))
    assert tifffile.imread(tmp_path / "labels.tif").max() == 6
    assert capsys.readouterr().out.startswith("6 objects")


def test_curate_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("curate_case.py", str(tmp_path / "set"))
    run("curate_case.py", str(tmp_path / "set"))  # the same content again is no second case
    (case,) = list(CuratedDataset(tmp_path / "set"))
    assert [item.class_name for item in case.objects] == ["gland", "gland", "gland", "lumen"]
    assert [item.corrected for item in case.objects] == [True, False, False, False]
    assert capsys.readouterr().out.count("1 case(s), 0 problem(s)") == 2


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []
