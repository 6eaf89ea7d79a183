"""Rows of scores to the paper's tables: by target and modality, ours beside the others, and the improvement."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas

from napari_medsam.errors import CaseError
from napari_medsam.evaluate.agreement import agreement
from napari_medsam_training.tasks import Comparison

METRICS = ("dsc", "nsd")
PAPER = Path(__file__).with_name("paper.csv")  # figures that the paper states
PAPER_COLUMNS = ("task", "model", "metric", "value", "source", "note")


@dataclass(frozen=True)
class Line:
    """One line of a table: a target, or the average over the targets (modality "").

    scores: mean over the cases by model; None where a model has none. gains: ours minus each other model's, by its
    title. paper: what the paper reports on the same target, by model.
    """

    target: str
    modality: str
    cases: int
    scores: dict[str, float | None]
    gains: dict[str, float | None]
    paper: dict[str, float]


@dataclass(frozen=True)
class PaperFigure:
    """A figure that the paper states, and how far it can be compared."""

    task: str
    model: str
    metric: str
    value: float
    source: str
    note: str


def read_paper(path: Path) -> tuple[PaperFigure, ...]:
    """The figures in a CSV file with the columns `PAPER_COLUMNS`. Raises CaseError when it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return tuple(
            PaperFigure(**{**{name: row[name] for name in PAPER_COLUMNS}, "value": float(row["value"])})  # type: ignore[arg-type]
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        columns = ", ".join(PAPER_COLUMNS)
        raise CaseError(
            f"The paper's figures {path} cannot be read ({error!r}). Columns: {columns}."
        ) from error


def paper_table(
    cases: pandas.DataFrame, metric: str, comparison: Comparison, side: str, paper: Sequence[PaperFigure] = ()
) -> list[Line]:
    """The lines of a table, by modality and target, and the average last: every target weighs the same.

    cases: rows of `scoring`. A model without a score on some target is left out of the average. No cases give no lines.
    """
    chosen = cases[cases["side"] == side]
    lines = []
    for (modality, target, task), group in chosen.groupby(["modality", "target", "task"]):
        means = group.groupby("model")[metric].mean()
        scores = {title: _or_none(means.get(title)) for title in comparison.titles}
        stated = {one.model: one.value for one in paper if (one.task, one.metric) == (task, metric)}
        lines.append(Line(target, modality, group["case"].nunique(), scores, _gains(scores), stated))
    if lines:
        averages = {title: _average([line.scores[title] for line in lines]) for title in comparison.titles}
        total = sum(line.cases for line in lines)
        lines.append(Line("Average", "", total, averages, _gains(averages), {}))
    return lines


def signed(gain: float | None) -> str:
    """A difference with its sign, in three places; without one where that is nothing, empty for None."""
    if gain is None:
        return ""
    return "0.000" if abs(gain) < 0.0005 else f"{gain:+.3f}"


def gains_in_words(lines: Sequence[Line]) -> list[str]:
    """For each other model how much better ours is on average, and the target where it gains least."""
    words = []
    for title, mean in lines[-1].gains.items() if lines else ():
        known = [(gain, line.target) for line in lines[:-1] if (gain := line.gains[title]) is not None]
        if mean is not None and known:
            least, target = min(known)
            words.append(f"over {title} {signed(mean)} on average, least for {target}: {signed(least)}")
    return words


def table_frame(lines: Sequence[Line], metric: str) -> pandas.DataFrame:
    """A table for a CSV file; scores and differences as shares from 0 to 1."""
    rows = []
    for line in lines:
        row: dict[str, object] = {"target": line.target, "modality": line.modality, "cases": line.cases}
        row |= {f"{metric} {title}": score for title, score in line.scores.items()}
        row |= {f"{metric} improvement over {title}": gain for title, gain in line.gains.items()}
        row |= {f"{metric} {model} (paper)": value for model, value in line.paper.items()}
        rows.append(row)
    return pandas.DataFrame(rows)


def agreement_table(
    cases: pandas.DataFrame, lesions: pandas.DataFrame, comparison: Comparison
) -> pandas.DataFrame:
    """Bland and Altman's bias and limits, and Pearson's r: a class's amount by case, and diameters by lesion."""
    rows = []
    for what, frame in (("amount", cases), ("longest", lesions), ("perpendicular", lesions)):
        if len(frame) == 0:
            continue
        for (task, name), group in frame.groupby(["task", "class"]):
            for title in comparison.titles:
                part = group[group["model"] == title]
                if len(part) == 0:
                    continue
                found = agreement(part[what].to_numpy(), part[f"reference_{what}"].to_numpy())
                rows.append(
                    {
                        "task": task,
                        "class": name,
                        "what": what,
                        "model": title,
                        "count": found.count,
                        "reference_mean": float(part[f"reference_{what}"].mean()),
                        "bias": found.bias,
                        "low": found.low,
                        "high": found.high,
                        "r": found.correlation,
                    }
                )
    return pandas.DataFrame(rows)


def _gains(scores: dict[str, float | None]) -> dict[str, float | None]:
    ours, *others = scores
    first = scores[ours]
    return {
        title: None if first is None or scores[title] is None else first - scores[title]  # type: ignore[operator]
        for title in others
    }


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
