"""From datasets and models to tables and a page: what is scored, and that the page stands by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest
from fake_medsam import FakeMedSAM

from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.errors import CaseError, ModelError
from napari_medsam.finetune.verdict import Candidate
from napari_medsam_training import baselines, report, tables, tasks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's imports

TASKS = """
seed = 3
[[model]]
title = "ours"
source = "lite-medsam"
[[model]]
title = "SAM <b>"
source = "sam-vit-b"
[[task]]
name = "discs"
dataset = "discs"
modality = "Test"
target = "Disc"
side = "internal"
unet = "discs.safetensors"
[[task]]
name = "volumes"
dataset = "volumes"
modality = "MR"
target = "Ball"
side = "external"
split = "volumes.csv"
"""


def disc(seed: int) -> Case:
    """Two bright discs of one class in a dark plane, in pixels."""
    rows, cols = np.mgrid[:60, :80]
    gts = np.zeros((60, 80), np.uint16)
    gts[np.hypot(rows - 30, cols - 20 - seed) < 12] = 1
    gts[np.hypot(rows - 28, cols - 60) < 9] = 2
    grey = np.where(gts > 0, 220, 20).astype(np.uint8)
    objects = (CaseObject(1, "disc", 1), CaseObject(2, "disc", 1))
    return Case(
        np.repeat(grey[..., None], 3, axis=2), gts, (1.0, 1.0), objects, source=Provenance(layer=f"d{seed}")
    )


def ball(seed: int) -> Case:
    """A ball in a volume of thick slices, in millimetres; its second half is of another class."""
    z, row, col = np.mgrid[:9, :40, :40]
    inside = np.hypot(np.hypot((z - 4) * 3, row - 20), col - 18 - seed) < 11
    gts = np.where(inside, np.where(z < 4, 1, 2), 0).astype(np.uint16)
    grey = np.where(inside, 200, 30).astype(np.uint8)
    objects = (CaseObject(1, "left", 1), CaseObject(2, "right", 2))
    return Case(grey, gts, (3.0, 1.0, 1.0), objects, source=Provenance(layer=f"b{seed}"), unit="mm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    CuratedDataset(folder / "discs", create=True).extend([disc(seed) for seed in range(8)])
    volumes = CuratedDataset(folder / "volumes", create=True)
    volumes.extend([ball(seed) for seed in range(3)])
    sides = ("train", "test", "test")
    (folder / "volumes.csv").write_text(
        "".join(f"{s},{r}\n" for s, r in zip(volumes.cases, sides, strict=True))
    )
    tiny = baselines.UNetConfig(side=32, channels=(4, 8, 16), epochs=2)
    baselines.save(folder / "discs.safetensors", baselines.train_unet([disc(0), disc(1)], [], tiny))
    (folder / "tasks.toml").write_text(TASKS)
    return folder


@pytest.fixture(scope="module")
def findings(folder: Path) -> report.Findings:
    comparison = tasks.read_comparison(folder / "tasks.toml")
    candidates = {
        "ours": Candidate("ours", FakeMedSAM(look=True)),
        "SAM <b>": Candidate("sam", FakeMedSAM("other", decoder_hash="f" * 64)),
    }
    paper = (tables.PaperFigure("discs", "MedSAM", "dsc", 0.5, "somewhere", "other discs"),)
    return report.find(comparison, candidates, None, ("a model is left out",), paper)


def test_each_class_in_a_case_is_scored_for_each_model(findings: report.Findings) -> None:
    cases = findings.cases
    discs = cases[cases["task"] == "discs"]
    assert discs.groupby("model").size().to_dict() == {"SAM <b>": 2, "U-Net": 2, "ours": 2}
    assert set(discs["target"]) == {"Disc"}
    balls = cases[cases["task"] == "volumes"]
    assert balls.groupby(["target", "model"]).size().to_dict() == {
        (target, model): 2 for target in ("Ball: left", "Ball: right") for model in ("ours", "SAM <b>")
    }
    assert (cases[cases["model"] == "ours"]["dsc"] > 0.99).all()  # it looks at what is bright in the box
    filled = discs[discs["model"] == "SAM <b>"]["dsc"]
    assert ((filled > 0.8) & (filled < 0.93)).all()  # a filled box around a disc: 2 * pi / (pi + 4) at best


def test_volumes_are_measured_as_volumes(findings: report.Findings) -> None:
    rows = findings.cases[(findings.cases["task"] == "volumes") & (findings.cases["model"] == "ours")]
    right = rows[rows["class"] == "right"].iloc[0]
    truth = ball(0).gts == 2
    assert right["reference_amount"] == truth.sum() * 3.0
    assert right["unit"] == "mm"
    lesions = findings.lesions[findings.lesions["task"] == "volumes"]
    assert lesions["reference_longest"].max() == pytest.approx(21.5, abs=1)
    assert len(lesions) == 2 * 2 * 2


def test_the_tables_are_means_by_target_and_their_average(findings: report.Findings) -> None:
    lines = tables.paper_table(findings.cases, "dsc", findings.comparison, "external")
    assert [line.target for line in lines] == ["Ball: left", "Ball: right", "Average"]
    scores = findings.cases[findings.cases["target"] == "Ball: left"].groupby("model")["dsc"].mean()
    assert lines[0].scores["ours"] == pytest.approx(scores["ours"])
    assert lines[0].scores["U-Net"] is None
    assert lines[0].gains["SAM <b>"] == pytest.approx(scores["ours"] - scores["SAM <b>"])
    least = min(lines[:2], key=lambda line: line.gains["SAM <b>"] or 0)
    (words,) = tables.gains_in_words(lines)
    assert words.startswith("over SAM <b> +0.")
    assert words.endswith(f"least for {least.target}: {least.gains['SAM <b>']:+.3f}")
    assert lines[2].gains["SAM <b>"] == pytest.approx(
        (lines[0].gains["SAM <b>"] + lines[1].gains["SAM <b>"]) / 2
    )
    (inner, _average) = tables.paper_table(
        findings.cases, "dsc", findings.comparison, "internal", findings.paper
    )
    assert inner.paper == {"MedSAM": 0.5}
    assert inner.cases == 2


def test_differences_have_a_sign_unless_they_are_nothing() -> None:
    assert [tables.signed(gain) for gain in (0.0004, -0.0004, 0.0126)] == ["0.000", "0.000", "+0.013"]
    assert (tables.signed(-0.2), tables.signed(None)) == ("-0.200", "")


def test_agreement_is_of_measured_and_reference(findings: report.Findings) -> None:
    agreed = tables.agreement_table(findings.cases, findings.lesions, findings.comparison)
    ours = agreed[(agreed["model"] == "ours") & (agreed["what"] == "longest") & (agreed["task"] == "discs")]
    assert ours["bias"].item() == pytest.approx(0, abs=0.5)
    filled = agreed[
        (agreed["model"] == "SAM <b>") & (agreed["what"] == "amount") & (agreed["class"] == "left")
    ]
    assert filled["bias"].item() > 0
    assert filled["count"].item() == 2
    assert set(agreed[agreed["model"] == "U-Net"]["what"]) == {"amount"}


def test_the_page_stands_by_itself_and_repeats(findings: report.Findings, tmp_path: Path) -> None:
    page = report.write_report(findings, tmp_path / "one", "Discs & balls")
    text = page.read_text()
    assert "Discs &amp; balls" in text
    assert "SAM &lt;b&gt;" in text
    assert "SAM <b>" not in text
    assert "a model is left out" in text
    assert "MedSAM 0.500" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert text.count("data:image/jpeg") == 2 + 3  # two cases of discs: best and worst; four halves of balls
    assert text.count("data:image/svg+xml") == 2 + 1 + 2 * 2
    written = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert written == [
        "agreement.csv", "cases.csv", "lesions.csv", "report.html", "table_external_dsc.csv",
        "table_external_nsd.csv", "table_internal_dsc.csv", "table_internal_nsd.csv",
    ]  # fmt: skip
    again = report.write_report(findings, tmp_path / "two", "Discs & balls")
    assert again.read_bytes() == page.read_bytes()
    frame = pandas.read_csv(tmp_path / "one" / "table_internal_dsc.csv")
    assert list(frame.columns[:4]) == ["target", "modality", "cases", "dsc ours"]
    assert frame["dsc MedSAM (paper)"].iloc[0] == 0.5
    ElementTree.fromstring(report.box_plots(findings.cases, "dsc", findings.comparison.titles))


def test_pictures_can_be_left_out(findings: report.Findings, tmp_path: Path) -> None:
    text = report.write_report(findings, tmp_path, "Quiet", pictures=False).read_text()
    assert "data:image/jpeg" not in text
    assert "worst case" not in text


def test_best_median_and_worst_are_by_our_score(findings: report.Findings) -> None:
    chosen = [one for one in report.chosen_cases(findings) if one.task == "volumes"]
    assert [one.rank for one in chosen] == ["best", "median", "worst"]
    scores = [one.dsc["ours"] for one in chosen]
    assert scores == sorted(scores, reverse=True)
    every = findings.cases.query("task == 'volumes' and model == 'ours'")["dsc"]
    assert (scores[0], scores[2]) == (every.max(), every.min())
    assert all(one.picture.startswith(b"\xff\xd8") for one in chosen)


def test_a_model_that_is_not_at_hand_is_left_out_with_a_line(folder: Path) -> None:
    comparison, missing = tasks.present(tasks.read_comparison(folder / "tasks.toml"))
    assert [model.title for model in comparison.models] == ["ours"]
    (line,) = missing
    assert line.startswith("SAM <b> is left out: put sam_vit_b_01ec64.pth (375 MB")
    with pytest.raises(ModelError, match="needs its first model"):
        tasks.present(replace(comparison, models=(tasks.Entrant("SAM", "sam-vit-b"),)))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('side = "external"', 'side = "sideways"', "sideways"),
        ('name = "volumes"', 'name = "discs"', "each once"),
        ('title = "SAM <b>"', 'title = "ours"', "each once"),
        ('target = "Ball"', "", "target"),
        ("seed = 3", "seed =", "cannot be read"),
    ],
)
def test_a_comparison_that_makes_no_sense(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "tasks.toml"
    path.write_text(TASKS.replace(old, new))
    with pytest.raises(CaseError, match=said):
        tasks.read_comparison(path)


def test_the_papers_figures(tmp_path: Path) -> None:
    known = tables.read_paper(tables.PAPER)
    assert {(one.model, one.value) for one in known} == {("MedSAM", 0.661), ("SAM", 0.008)}
    assert all(one.source and one.note for one in known)
    (tmp_path / "paper.csv").write_text("task,model\nvessels,SAM\n")
    with pytest.raises(CaseError, match=r"paper\.csv cannot be read"):
        tables.read_paper(tmp_path / "paper.csv")


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "gone.toml"), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("report: ")
