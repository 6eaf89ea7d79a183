"""The whole way in one command, on made-up sets: what is pooled, what is kept out, and what is not done twice."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import Split, read_split
from napari_medsam.errors import CaseError
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam_training import pool, report, results, tasks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's imports

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
SETS = """
[[set]]
name = "inner"
modality = "Test"
target = "cell"
side = "internal"

[[set]]
name = "outer"
modality = "Test"
target = "blob"
side = "external"
match = '^a'
"""


def cells(seed: int, count: int = 1, target: str = "cell", class_id: int = 1) -> Case:
    """Bright discs in a row on noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:64, : 64 * count]
    gts = np.zeros((64, 64 * count), np.uint16)
    for label in range(1, count + 1):
        gts[np.hypot(rows - 32, cols - 64 * label + 30 + seed % 5) < 18] = label
    grey = np.clip(rng.normal(90, 25, gts.shape) + 80 * (gts > 0), 0, 255).astype(np.uint8)
    objects = tuple(CaseObject(label, target, class_id) for label in range(1, count + 1))
    return Case(
        np.repeat(grey[..., None], 3, axis=2),
        gts,
        (1.0, 1.0),
        objects,
        source=Provenance(layer=f"{target} {seed}"),
    )


def test_the_pool_holds_the_sides_that_train_and_joins_classes(tmp_path: Path) -> None:
    parts = {}
    for name, target, count in (("a", "cell", 3), ("b", "blob", 1)):
        dataset = CuratedDataset(tmp_path / name, create=True)
        dataset.extend([cells(seed, count, target) for seed in range(4)])
        parts[name] = (dataset, Split(dataset.cases[:2], dataset.cases[2:3], dataset.cases[3:], "group"))
    table = pool.pool(parts, tmp_path / "pool", most=2)
    pooled = CuratedDataset(tmp_path / "pool")
    split = read_split(table, pooled.cases)
    assert [len(side) for side in (split.train, split.val, split.test)] == [4, 2, 0]
    assert {entry.name: entry.id for entry in pooled.classes} == {"blob": 1, "cell": 2}
    assert pooled.validate() == []
    groups = {case.group for case in pooled}
    assert len(groups) == 6
    assert all(group is not None and group.startswith(("a ", "b ")) for group in groups)
    assert sorted(len(case.objects) for case in pooled) == [1, 1, 1, 2, 2, 2]
    again = pool.pool(parts, tmp_path / "again", most=2)
    assert again.read_text() == table.read_text()


def test_a_volume_keeps_planes_spread_over_it() -> None:
    gts = np.zeros((12, 8, 8), np.uint16)
    gts[1:11, 2:6, 2:4] = 1
    gts[1:11, 2:6, 4:6] = 2
    objects = (CaseObject(1, "left", 1), CaseObject(2, "right", 2))
    case = Case(np.zeros_like(gts, np.uint8), gts, (3.0, 1.0, 1.0), objects, unit="mm")
    thin = pool.thinned(case, 6, np.random.default_rng(0))
    kept = np.flatnonzero(thin.gts.any(axis=(1, 2)))
    assert len(kept) == 3
    assert np.ptp(kept) >= 4
    np.testing.assert_array_equal(thin.gts[kept], gts[kept])
    assert thin.objects == objects
    assert pool.thinned(case, 100, np.random.default_rng(0)) is case


def test_the_committed_settings_can_be_read() -> None:
    sets = results.read_sets(CONFIGS / "sets.toml")
    assert len(sets) == 15
    assert sum(one.side == "external" for one in sets) == 3
    assert {one.name for one in sets if one.modality == "MR"} == {"mr3d_hippocampus", "mr3d_spinalcord_sct"}
    ours = FinetuneConfig.from_json(tomllib.loads((CONFIGS / "ours.toml").read_text()))
    pooled = {"keep_base": 1.0, "epochs": 20}  # for many targets
    # the rate is written out, as its default follows from detail
    assert ours == replace(FinetuneConfig(), learning_rate=2e-4, **pooled)
    values = tomllib.loads((CONFIGS / "paper.toml").read_text())
    paper = FinetuneConfig.from_json(values)
    assert set(values) <= set(paper.to_json())
    assert (paper.rate, paper.weight_decay, paper.schedule, paper.iou) == (1e-5, 0, "constant", 0)
    assert paper.jitter_px == (0, 20)


def test_sets_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sets.toml").write_text(SETS)
    assert [one.name for one in results.read_sets(tmp_path / "sets.toml", ["outer"])] == ["outer"]
    with pytest.raises(CaseError, match="no set 'nobody'"):
        results.read_sets(tmp_path / "sets.toml", ["nobody"])
    (tmp_path / "sets.toml").write_text(SETS.replace("side", "sight"))
    with pytest.raises(CaseError, match=r"sets\.toml cannot be read"):
        results.read_sets(tmp_path / "sets.toml")


def test_some_images_of_a_set_are_copied_with_their_masks(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "raw" / part).mkdir(parents=True)
        for name in ("a1.png", "a2.png", "a3.png", "b1.png"):
            (tmp_path / "raw" / part / name).write_text(f"{part} {name}")
    (outer,) = (one for one in _sets(tmp_path) if one.name == "outer")
    chosen = results._chosen(outer, tmp_path / "raw", tmp_path / "some", 2)
    assert sorted(path.name for path in (chosen / "images").iterdir()) == ["a1.png", "a3.png"]
    assert (chosen / "masks" / "a3.png").read_text() == "masks a3.png"
    (inner,) = (one for one in _sets(tmp_path) if one.name == "inner")
    assert results._chosen(inner, tmp_path / "raw", tmp_path / "all", None) == tmp_path / "raw"
    with pytest.raises(CaseError, match="holds no images"):
        results._chosen(outer, tmp_path / "gone", tmp_path / "none", 2)


def test_what_is_compared_can_be_read(tmp_path: Path) -> None:
    path = results.write_comparison(tmp_path / "comparison.toml", _sets(tmp_path), 5)
    comparison = tasks.read_comparison(path)
    assert comparison.seed == 5
    assert comparison.titles[:3] == ("ours", "paper settings", "released")
    assert [task.side for task in comparison.tasks] == ["internal", "external"]
    assert comparison.tasks[0].unet == tmp_path / "unets" / "inner.safetensors"


@pytest.mark.timeout(900)  # a real encoder, two decoders and two U-Nets: half a minute on an idle machine
def test_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sets.toml").write_text(SETS)
    made = []

    def curate(raw: results.RawSet, _data: Path, out: Path, _most: int | None) -> Path:
        made.append(raw.name)
        folder = out / "datasets" / raw.name
        seeds = range(5) if raw.name == "inner" else range(10, 13)
        CuratedDataset(folder, create=True).extend([cells(seed, 1, raw.target) for seed in seeds])
        return folder

    monkeypatch.setattr(results, "curate", curate)
    words = [
        str(tmp_path),
        "-o",
        str(tmp_path / "out"),
        "--sets",
        str(tmp_path / "sets.toml"),
        "--epochs",
        "1",
    ]
    assert results.main([*words, "--docs", str(tmp_path / "docs")], CONFIGS.parent) == 0
    said = capsys.readouterr()
    assert "SAM ViT-B is left out: put sam_vit_b_01ec64.pth" in said.err
    assert "External validation, average of 1 targets, DSC: ours " in said.out
    cases = pandas.read_csv(tmp_path / "out" / "report" / "cases.csv")
    assert cases.groupby("task")["case"].nunique().to_dict() == {"inner": 1, "outer": 1}
    assert set(cases["model"]) == {"ours", "paper settings", "released", "U-Net"}
    trained = set(CuratedDataset(tmp_path / "out" / "pool").summary().classes)
    assert trained == {"cell"}  # nothing of the external set
    text = (tmp_path / "docs" / "report.html").read_text()
    assert "data:image/jpeg" not in text
    assert str(tmp_path) not in text

    first = (tmp_path / "out" / "report" / "cases.csv").read_bytes()
    assert results.main(words, CONFIGS.parent) == 0
    assert "decoder, ours: there already" in capsys.readouterr().out
    assert made == ["inner", "outer"]
    assert (tmp_path / "out" / "report" / "cases.csv").read_bytes() == first
    assert report.main([str(tmp_path / "gone.toml"), "-o", str(tmp_path)]) == 1


def test_a_set_that_is_not_there_ends_the_command_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sets.toml").write_text(SETS)
    words = [str(tmp_path), "-o", str(tmp_path / "out"), "--sets", str(tmp_path / "sets.toml")]
    assert results.main(words, CONFIGS.parent) == 1
    assert "results: " in capsys.readouterr().err


def _sets(folder: Path) -> tuple[results.RawSet, ...]:
    (folder / "some_sets.toml").write_text(SETS)
    return results.read_sets(folder / "some_sets.toml")
