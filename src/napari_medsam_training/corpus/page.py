"""The report of a dataset's curation: one HTML file that needs no other."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from pathlib import Path

from napari_medsam.files import replacing
from napari_medsam_training.corpus.finish import Tally
from napari_medsam_training.corpus.plan import FOLDER
from napari_medsam_training.corpus.thumbnails import sheet

_LISTED = 2000  # lines of files left out on the page; the table beside it has them all
_STYLE = """body{font:15px/1.45 sans-serif;max-width:1260px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left}
td.n,th.n{text-align:right}.bar{background:#0072b2;height:.8em;display:inline-block}img{max-width:100%}"""


def write_page(dataset: Path, tallies: Sequence[Tally]) -> Path:
    """Write curation/report.html and give its path: counts, sides, thumbnails, and every file left out and why."""
    parts = [f"<h1>Curation of {escape(dataset.resolve().name)}</h1>", _counts(tallies), _sides(tallies)]
    for tally in tallies:
        parts += [f"<h2>{escape(tally.name)}</h2>", _classes(tally), _picture(dataset, tally)]
    parts += ["<h2>Left out</h2>", _left(dataset, tallies)]
    path = dataset / FOLDER / "report.html"
    page = f"<!doctype html><meta charset=utf-8><title>Curation</title><style>{_STYLE}</style>" + "\n".join(
        parts
    )
    with replacing(path) as stream:
        stream.write(page.encode())
    return path


def _counts(tallies: Sequence[Tally]) -> str:
    """Cases, planes and objects of each modality and target, with bars, as the paper's figure of its data."""
    most = max((tally.planes for tally in tallies), default=0) or 1
    rows = []
    for tally in sorted(tallies, key=lambda t: (t.modality.lower(), t.target.lower())):
        bar = f'<span class=bar style="width:{max(2, round(300 * tally.planes / most))}px"></span>'
        objects = sum(tally.classes.values())
        numbers = [tally.cases, tally.planes, objects, tally.groups, sum(tally.left.values())]
        rows.append([tally.modality, tally.target, *numbers, bar])
    head = ["modality", "target", "cases", "planes with objects", "objects", "groups", "left out", "planes"]
    return _html_table(head, rows, raw={7})


def _sides(tallies: Sequence[Tally]) -> str:
    rows = [[t.name, *(t.sides[side] for side in ("train", "val", "test"))] for t in tallies]
    empty = [f"{t.name}: {side}" for t in tallies for side in ("train", "val", "test") if not t.sides[side]]
    advice = (
        f"<p>Without a case: {escape(', '.join(empty))}. Sides follow from the groups' names, so that they never "
        "change; with few groups give a table (--split) or another --seed.</p>"
        if empty
        else ""
    )
    return "<h2>Split</h2>" + _html_table(["run", "train", "val", "test"], rows) + advice


def _classes(tally: Tally) -> str:
    rows: Iterable[list[object]] = [[name, count] for name, count in sorted(tally.classes.items())]
    notes = "".join(f"<li>{n} x {escape(text)}</li>" for text, n in sorted(tally.remarks.items()) if n)
    notes = f"<p>Remarks (each case's in cases.csv):</p><ul>{notes}</ul>" if notes else ""
    return _html_table(["class", "objects"], rows) + notes


def _picture(dataset: Path, tally: Tally) -> str:
    if not tally.shown:
        return ""
    picture = sheet(dataset, tally.shown)
    with replacing(dataset / FOLDER / tally.name / "thumbnails.png") as stream:
        picture.save(stream, "PNG")
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=88)
    data = base64.b64encode(small.getvalue()).decode()
    return f'<p>{len(tally.shown)} of {tally.cases} cases</p><img src="data:image/jpeg;base64,{data}">'


def _left(dataset: Path, tallies: Sequence[Tally]) -> str:
    kinds: Counter[str] = Counter()
    for tally in tallies:
        kinds.update(tally.left)
    with (dataset / FOLDER / "left_out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(islice(csv.reader(file), 1, _LISTED + 1))
    more = kinds.total() - len(rows)
    note = f"<p>and {more} more, in left_out.csv</p>" if more > 0 else ""
    summary = _html_table(["kind", "files"], [[kind, count] for kind, count in kinds.most_common()])
    return summary + _html_table(["run", "folder", "file", "kind", "why"], rows) + note


def _html_table(head: Sequence[str], rows: Iterable[Sequence[object]], raw: Iterable[int] = ()) -> str:
    raw = set(raw)
    lines = ["".join(f"<th>{escape(name)}" for name in head)]
    for row in rows:
        cells = []
        for place, value in enumerate(row):
            kind = " class=n" if isinstance(value, int) else ""
            cells.append(f"<td{kind}>{value if place in raw else escape(str(value))}")
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}" for line in lines) + "</table>"
