"""After all shards: the split, the tables, the report and the manifest, from the records of all runs of a dataset."""

from __future__ import annotations

import csv
import heapq
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from hashlib import sha256
from pathlib import Path
from typing import Any

from napari_medsam.curation.formats.sidecar import sidecar_path
from napari_medsam.curation.split import ROLES
from napari_medsam.files import replacing
from napari_medsam_training.corpus.index import write_index
from napari_medsam_training.corpus.left_out import Left
from napari_medsam_training.corpus.plan import FOLDER, RunFolder, rows_in, runs_of
from napari_medsam_training.corpus.rows import CaseRow, LeftRow, RunRecord
from napari_medsam_training.corpus.sides import Copies, side_in_run, unnamed

SHOWN = 24  # thumbnails of a run


@dataclass
class Tally:
    """What one run gave. sides: cases on each; shown: stems for thumbnails, spread by chance but always the same."""

    name: str
    modality: str
    target: str
    cases: int = 0
    planes: int = 0
    classes: Counter[str] = dataclass_field(default_factory=Counter)
    sides: Counter[str] = dataclass_field(default_factory=Counter)
    groups: int = 0
    left: Counter[str] = dataclass_field(default_factory=Counter)
    remarks: Counter[str] = dataclass_field(default_factory=Counter)
    shown: list[str] = dataclass_field(default_factory=list)


def finish(dataset: Path) -> list[Tally]:
    """Bring a dataset's split, tables and manifest up to date with its records; gives the tally of each run.

    Writes split.csv (stem, side: as `napari-medsam finetune --split` reads it), curation/cases.csv and
    curation/left_out.csv. Cases that a run no longer makes, because their files or its settings changed, are removed.
    """
    runs = runs_of(dataset)
    _remove_stale(dataset, runs)
    copies = Copies()
    firsts: dict[str, str] = {}
    for run in runs:
        for row in run.cases():
            first = copies.add(row.pixels, f"{run.path.name}/{row.key}", row.group)
            if first is not None:
                firsts[row.stem] = first
    place = dataset / FOLDER
    with (
        _Table(dataset / "split.csv", ["stem", "side"]) as split,
        _Table(place / "cases.csv", _CASE_COLUMNS) as cases,
        _Table(place / "left_out.csv", ["run", "folder", "name", "kind", "reason"]) as left,
    ):
        tallies = [_tally(run, copies, firsts, _Tables(split, cases, left)) for run in runs]
    del copies, firsts
    write_index(dataset, runs)
    return tallies


_CASE_COLUMNS = [
    "run", "key", "stem", "group", "side", "modality", "target", "planes", "objects", "same_pixels_as", "remarks"
]  # fmt: skip


@dataclass(frozen=True)
class _Tables:
    """The CSV writers that all runs share."""

    split: Any
    cases: Any
    left: Any


def _tally(run: RunFolder, copies: Copies, firsts: dict[str, str], tables: _Tables) -> Tally:
    about = run.read()
    tally = Tally(run.path.name, about.settings.modality, about.settings.target)
    groups: set[str] = set()
    sides = _sides_of_copies(run, about, copies)
    for row in run.cases():
        side = _placed(tally, row, sides(row), tables)
        first = firsts.get(row.stem, "")
        tables.cases.writerow(_line(tally, row, side, first))
        _count(tally, row, bool(first))
        groups.add(row.group)
    for entry in _all_left(run, about):
        _leave(tally, tables, entry)
    stems = (row.stem for row in run.cases())
    tally.groups, tally.shown = len(groups), sorted(heapq.nsmallest(SHOWN, stems, key=_rank))
    return tally


def _placed(tally: Tally, row: CaseRow, side: str | None, tables: _Tables) -> str:
    """Put a case on its side of the split, or say why it is on none; gives the side, "" for none."""
    if side is None:
        _leave(tally, tables, Left(row.name, "not-in-split", "The table of sides does not name it."))
    elif side == "":
        what = "The table puts another copy of the same pixels on another side; the one that judges stays."
        _leave(tally, tables, Left(row.name, "copy-on-two-sides", what))
    else:
        tables.split.writerow([row.stem, side])
        tally.sides[side] += 1
    return side or ""


def _count(tally: Tally, row: CaseRow, is_copy: bool) -> None:
    tally.cases += 1
    tally.planes += row.planes
    tally.classes.update(row.classes)
    tally.remarks.update(_general(remark) for remark in row.remarks)
    tally.remarks["same pixels as another image"] += is_copy


def _line(tally: Tally, row: CaseRow, side: str, first: str) -> list[Any]:
    """A case's line in cases.csv, in the order of its columns."""
    known = [tally.name, row.key, row.stem, row.group, side, tally.modality, tally.target]
    return [*known, row.planes, sum(row.classes.values()), first, "; ".join(row.remarks)]


def _general(remark: str) -> str:
    """A remark without its numbers, so that cases can be counted."""
    return "objects or outlines too small, left out" if "left out (" in remark else remark


def _rank(stem: str) -> str:
    return sha256(stem.encode()).hexdigest()


def _leave(tally: Tally, tables: _Tables, entry: Left) -> None:
    tally.left[entry.kind] += 1
    tables.left.writerow([tally.name, entry.of, entry.name, entry.kind, entry.reason])


def _all_left(run: RunFolder, about: RunRecord) -> Iterator[Left]:
    yield from run.left()
    for row in run.rows():
        if isinstance(row, LeftRow):
            yield Left(row.name, row.kind, f"{row.reason} (Mask: {row.mask})")
    for name in unnamed(about.sides or {}, run.rows()):
        yield Left(name, "not-in-folder", "The table of sides names it, but there is no such pair.")


def _sides_of_copies(run: RunFolder, about: RunRecord, copies: Copies) -> Callable[[CaseRow], str | None]:
    """row -> side, None where the table is silent, "" where it would put copies of an image on two sides."""
    if about.sides is None:
        return lambda row: side_in_run(about, row, copies)
    strictest: dict[str, int] = {}
    for row in run.cases():
        side = side_in_run(about, row, copies)
        if side is not None:
            strictest[row.pixels] = max(ROLES.index(side), strictest.get(row.pixels, 0))

    def side_of_row(row: CaseRow) -> str | None:
        side = side_in_run(about, row, copies)
        return side if side is None or ROLES[strictest[row.pixels]] == side else ""

    return side_of_row


def _remove_stale(dataset: Path, runs: Iterable[RunFolder]) -> None:
    """Records that no plan names any more go, and their cases unless another record has them."""
    runs = list(runs)
    stale = [
        path
        for run in runs
        for path in sorted(run.records.glob("*.jsonl"))
        if path.stem not in set(run.read().records)
    ]
    if not stale:
        return
    current = {row.stem for run in runs for row in run.cases()}
    for path in stale:
        for row in rows_in(path):
            if isinstance(row, CaseRow) and row.stem not in current:
                npz = dataset / f"{row.stem}.npz"
                sidecar_path(npz).unlink(missing_ok=True)  # first: without it a .npz counts as cut short
                npz.unlink(missing_ok=True)
        path.unlink()


class _Table:
    """A CSV file, written row by row, whole or not at all."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._columns = columns
        self._file = replacing(path)

    def __enter__(self) -> Any:
        self._text = io.TextIOWrapper(self._file.__enter__(), "utf-8", newline="", write_through=True)
        writer = csv.writer(self._text, lineterminator="\n")
        writer.writerow(self._columns)
        return writer

    def __exit__(self, *error: Any) -> None:
        self._text.flush()
        self._text.detach()
        self._file.__exit__(*error)
