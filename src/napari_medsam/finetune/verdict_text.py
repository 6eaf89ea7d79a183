"""A verdict in words and in rows of a table. No torch."""

from __future__ import annotations

from napari_medsam.evaluate.verdict import Scores, Verdict

ROLES = ("new", "current", "released")
METRICS = ("dsc", "nsd")
HEADING = ("", "Objects", *(f"{metric.upper()} {role}" for metric in METRICS for role in ROLES))
_WORDS = {"adopt": "Adopted", "keep": "Kept aside", "unsure": "Cannot tell"}


def decision_of(verdict: Verdict | None) -> str:
    """The decision in one or two words; "Not judged" without a verdict."""
    return "Not judged" if verdict is None else _WORDS.get(verdict.decision, "Not judged")


def sentence_of(verdict: Verdict) -> str:
    """All that stands above the table: the decision, why, and what the interval was drawn over."""
    parts = [f"{decision_of(verdict)}.", verdict.reason]
    found = verdict.difference
    if found is not None:
        over = f"the {found.level:.0%} interval over {found.over}"
        parts.append(f"In brackets {over}; judged on {verdict.cases} cases.")
    return " ".join(part for part in parts if part)


def rows_of(verdict: Verdict) -> list[tuple[str, ...]]:
    """A row for the mean, for each class and for each case, as `HEADING` names its columns."""
    rows = [_row("All", verdict.objects, [verdict.mean.get(role) for role in ROLES])]
    rows += [
        _row(f"class {one.class_}", one.objects, [one.new, one.current, one.released])
        for one in verdict.classes
    ]
    rows += [_row(one.case, one.objects, [one.new, one.current, one.released]) for one in verdict.table]
    return rows


def _row(title: str, objects: int, scores: list[Scores | None]) -> tuple[str, ...]:
    cells = ["" if one is None else f"{getattr(one, metric):.3f}" for metric in METRICS for one in scores]
    return (title, str(objects), *cells)
