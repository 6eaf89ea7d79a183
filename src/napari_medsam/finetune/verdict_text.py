"""A verdict in words and in rows of a table. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("new", "current", "released")
METRICS = ("dsc", "nsd")
HEADING = ("", "Objects", *(f"{metric.upper()} {role}" for metric in METRICS for role in ROLES))
_WORDS = {"adopt": "Adopted", "keep": "Kept aside", "unsure": "Cannot tell"}


def decision_of(verdict: Mapping[str, Any] | None) -> str:
    """The decision in one or two words; "Not judged" without a verdict."""
    return "Not judged" if verdict is None else _WORDS.get(str(verdict.get("decision")), "Not judged")


def sentence_of(verdict: Mapping[str, Any]) -> str:
    """All that stands above the table: the decision, why, and what the interval was drawn over."""
    parts = [f"{decision_of(verdict)}.", str(verdict.get("reason", ""))]
    found = verdict.get("difference")
    if found:
        over, cases = found.get("over", "cases"), verdict.get("cases", 0)
        parts.append(
            f"In brackets the {found['level']:.0%} interval, drawn over {over}; {cases} cases judge."
        )
    return " ".join(part for part in parts if part)


def rows_of(verdict: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for the mean, for each class and for each case, as `HEADING` names its columns."""
    means = {"objects": verdict.get("objects", 0), **verdict.get("mean", {})}
    rows = [_row("All", means)]
    rows += [_row(f"class {entry['class']}", entry) for entry in verdict.get("classes", ())]
    rows += [_row(str(entry["case"]), entry) for entry in verdict.get("table", ())]
    return rows


def _row(title: str, scores: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [_cell(scores.get(role), metric) for metric in METRICS for role in ROLES]
    return (title, str(scores.get("objects", "")), *cells)


def _cell(scores: Mapping[str, float] | None, metric: str) -> str:
    return "" if scores is None or metric not in scores else f"{scores[metric]:.3f}"
