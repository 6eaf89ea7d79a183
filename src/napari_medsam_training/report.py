"""One self-contained page, and CSV files, on how models do on the held-out cases of several datasets.

    python training/report.py COMPARISON.toml -o FOLDER [--paper FIGURES.csv] [--public FOLDER]

COMPARISON.toml: what is compared, see training/tasks.py. FOLDER receives report.html, cases.csv (a class in a case),
lesions.csv (an object), table_SIDE_METRIC.csv and agreement.csv. The same inputs give the same numbers.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas
from PIL import Image

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.finetune.candidates import candidates_of
from napari_medsam.finetune.verdict import TOLERANCE, Candidate
from napari_medsam.model.decoder_file import read_info
from napari_medsam.model.names import find_model
from napari_medsam_training.baselines import load
from napari_medsam_training.command import parser_of, status_of
from napari_medsam_training.figures import Curve, agreement_plots, box_plots, colour_of, learning_curves
from napari_medsam_training.pages import rendered
from napari_medsam_training.scoring import Row, score_task
from napari_medsam_training.tables import (
    METRICS,
    PAPER,
    Line,
    PaperFigure,
    agreement_table,
    gains_in_words,
    paper_table,
    read_paper,
    signed,
    table_frame,
)
from napari_medsam_training.tasks import UNET, Comparison, Task, present, read_comparison

SIDES = {"internal": "Internal validation", "external": "External validation"}


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a page is made of. pictures: JPEG by task, case and class. missing: a line for each absent model."""

    comparison: Comparison
    cases: pandas.DataFrame
    lesions: pandas.DataFrame
    pictures: Mapping[tuple[str, str, str], bytes]
    curves: Mapping[str, Curve]
    unet_curves: Mapping[str, Curve]
    settings: Mapping[str, Mapping[str, object]]
    missing: tuple[str, ...]
    paper: tuple[PaperFigure, ...] = ()


def find(
    comparison: Comparison,
    candidates: Mapping[str, Candidate],
    cache: EmbeddingCache | None,
    missing: tuple[str, ...] = (),
    paper: tuple[PaperFigure, ...] = (),
) -> Findings:
    """Score all tasks. candidates: by the models' titles. Raises MedSAMError."""
    cases: list[Row] = []
    lesions: list[Row] = []
    pictures: dict[tuple[str, str, str], bytes] = {}
    for task in comparison.tasks:
        count = 0
        for scored in score_task(task, comparison, candidates, cache):
            cases += scored.cases
            lesions += scored.lesions
            count += 1
            for name, picture in scored.pictures.items():
                pictures[task.name, str(scored.cases[0]["case"]), name] = _jpeg(picture)
        print(f"{task.name}: {count} held-out cases scored", file=sys.stderr, flush=True)
    if not cases:
        raise CaseError("The test cases of the tasks hold no objects. Give other splits.")
    known = {model.title: find_model(model.source).decoder for model in comparison.models}
    infos = {title: read_info(path) for title, path in known.items() if path is not None}
    return Findings(
        comparison,
        pandas.DataFrame(cases),
        pandas.DataFrame(lesions),
        pictures,
        {title: info.curve for title, info in infos.items()},
        {f"{UNET} {task.name}": load(task.unet).curve for task in comparison.tasks if task.unet is not None},
        {title: info.config for title, info in infos.items()},
        missing,
        paper,
    )


def make(path: Path, folder: Path, title: str, paper: Path = PAPER, public: Path | None = None) -> None:
    """Read a comparison, score it, and write its report; a second one without pictures into `public`.

    Raises MedSAMError for what cannot be read or scored, OSError.
    """
    comparison, missing = present(read_comparison(path))
    for line in missing:
        print(line, file=sys.stderr)
    names = {task.name for task in comparison.tasks}
    stated = tuple(one for one in read_paper(paper) if one.task in names)
    found = candidates_of([model.source for model in comparison.models], comparison.device)
    candidates = {model.title: found[model.source] for model in comparison.models}
    findings = find(comparison, candidates, EmbeddingCache(), missing, stated)
    print(f"written: {write_report(findings, folder, title)}")
    if public is not None:
        print(f"written: {write_report(findings, public, title, pictures=False)}")
    _print_averages(findings)


def write_report(findings: Findings, folder: Path, title: str, pictures: bool = True) -> Path:
    """Write the page and its CSV files; returns the page. Raises OSError.

    pictures: whether the page shows cases; without for images that may not be passed on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    comparison = findings.comparison
    sections = []
    for side, heading in SIDES.items():
        tables = {
            metric: paper_table(findings.cases, metric, comparison, side, findings.paper)
            for metric in METRICS
        }
        if tables["dsc"]:
            sections.append({"heading": heading, "side": side, "tables": tables})
            for metric, lines in tables.items():
                _write_csv(folder / f"table_{side}_{metric}.csv", table_frame(lines, metric))
    agreed = agreement_table(findings.cases, findings.lesions, comparison)
    for name, frame in (("cases", findings.cases), ("lesions", findings.lesions), ("agreement", agreed)):
        _write_csv(folder / f"{name}.csv", frame)
    page = rendered(
        "report.html.j2",
        FILTERS,
        title=title,
        findings=findings,
        comparison=comparison,
        titles=comparison.titles,
        sections=sections,
        unet=UNET if UNET in comparison.titles else None,
        tolerance=TOLERANCE,
        counts=_counts(findings),
        boxes={metric: box_plots(findings.cases, metric, comparison.titles) for metric in METRICS},
        chosen=chosen_cases(findings) if pictures else [],
        curves=[learning_curves(found) for found in (findings.curves, findings.unet_curves) if found],
        burden=_burden_plots(findings),
        agreed=agreed.to_dict("records"),
        colours=[f"rgb({', '.join(str(round(255 * v)) for v in colour_of(n))})" for n in range(6)],
    )
    with replacing(folder / "report.html") as stream:
        stream.write(page.encode())
    return folder / "report.html"


@dataclass(frozen=True, eq=False)
class ChosenCase:
    """A class in a case to look at: its rank in its task, and every model's DSC."""

    task: str
    rank: str
    case: str
    class_name: str
    dsc: Mapping[str, float]
    picture: bytes


def chosen_cases(findings: Findings) -> list[ChosenCase]:
    """Of each task the best, the median and the worst case by our DSC, with picture and every model's scores."""
    ours = findings.comparison.titles[0]
    chosen = []
    for task, rows in findings.cases.groupby("task", sort=False):
        order = rows[rows["model"] == ours].sort_values(["dsc", "case", "class"])
        places = {"best": len(order) - 1}
        if len(order) > 2:
            places["median"] = (len(order) - 1) // 2
        if len(order) > 1:
            places["worst"] = 0
        for rank, place in places.items():
            case, name = order.iloc[place][["case", "class"]]
            same = rows[(rows["case"] == case) & (rows["class"] == name)]
            scores = dict(zip(same["model"], same["dsc"], strict=True))
            chosen.append(
                ChosenCase(str(task), rank, case, name, scores, findings.pictures[str(task), case, name])
            )
    return chosen


@dataclass(frozen=True)
class Count:
    """How much of a task was held out."""

    task: Task
    cases: int
    groups: int
    objects: int
    unit: str


def _counts(findings: Findings) -> list[Count]:
    counts = []
    for task in findings.comparison.tasks:
        rows, lesions = (
            frame[(frame["task"] == task.name) & (frame["model"] == findings.comparison.titles[0])]
            for frame in (findings.cases, findings.lesions)
        )
        unit = rows["unit"].iloc[0] if len(rows) else ""
        counts.append(Count(task, rows["case"].nunique(), rows["group"].nunique(), len(lesions), unit))
    return counts


def _burden_plots(findings: Findings) -> list[dict[str, str]]:
    """A plot of amounts for each task, and one of diameters where lesions were boxed."""
    plots = []
    for task in findings.comparison.tasks:
        cases = findings.cases[findings.cases["task"] == task.name]
        lesions = findings.lesions[findings.lesions["task"] == task.name]
        unit = str(cases["unit"].iloc[0]) if len(cases) else "pixel"
        power = "³" if len(cases) and bool(cases["is_volume"].iloc[0]) else "²"
        amount = agreement_plots(cases, "amount", f"{unit}{power}", findings.comparison.titles)
        longest = agreement_plots(lesions, "longest", unit, findings.comparison.titles)
        plots.append({"task": task.name, "amount": amount, "longest": longest})
    return plots


FILTERS: Mapping[str, Callable[..., object]] = {
    "share": lambda value: "" if value is None else f"{value:.3f}",
    "gain": signed,
    "gains_in_words": gains_in_words,
    "direction": lambda text: {"+": "up", "-": "down"}.get(text[:1], ""),
    "number": lambda value: "" if value != value else f"{value:.4g}",
    "svg": lambda text: _data("image/svg+xml", text.encode()),
    "jpeg": lambda content: _data("image/jpeg", content),
}


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _jpeg(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=88, subsampling=0)
    return stream.getvalue()


def _write_csv(path: Path, frame: pandas.DataFrame) -> None:
    with replacing(path) as stream:
        stream.write(frame.to_csv(index=False, float_format="%.6f", lineterminator="\n").encode())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("comparison", type=Path, metavar="COMPARISON.toml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--paper", type=Path, default=PAPER, help="figures that the paper states")
    parser.add_argument(
        "--public",
        type=Path,
        metavar="FOLDER",
        help="a second report without pictures of cases, to be passed on",
    )
    parser.add_argument("--title", default="Decoders on held-out cases")
    options = parser.parse_args(arguments)
    work = partial(make, options.comparison, options.output, options.title, options.paper, options.public)
    return status_of("report", work, failed=1)


def _print_averages(findings: Findings) -> None:
    for side, heading in SIDES.items():
        for metric in METRICS:
            lines: list[Line] = paper_table(findings.cases, metric, findings.comparison, side)
            if lines:
                scores = ", ".join(f"{k} {v:.3f}" for k, v in lines[-1].scores.items() if v is not None)
                print(f"{heading}, average of {len(lines) - 1} targets, {metric.upper()}: {scores}")
                print(
                    "\n".join(f"  {findings.comparison.titles[0]} {words}" for words in gains_in_words(lines))
                )


if __name__ == "__main__":
    sys.exit(main())
