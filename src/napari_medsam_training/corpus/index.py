"""The dataset's manifest from the records: one case after the other, however many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.manifest import MANIFEST_NAME, CaseEntry, ClassEntry, class_entry, write_entries
from napari_medsam_training.corpus.plan import RunFolder


def write_index(dataset: Path, runs: Sequence[RunFolder]) -> None:
    """Write dataset.json. Where the folder holds cases that no run made, it is brought up to date case by case.

    Raises OSError, BrokenCase.
    """
    if _cases_in(dataset) != sum(1 for run in runs for _ in run.cases()):
        CuratedDataset(dataset, create=True).extend([])
        return
    seen: set[int] = set()

    def classes() -> Iterator[ClassEntry]:
        names = {rule.id: rule.name for run in runs for rule in run.read().settings.rules.classes}
        return (class_entry(number, names[number]) for number in sorted(seen))

    write_entries(dataset / MANIFEST_NAME, dataset.resolve().name, _entries(runs, seen), classes)


def _entries(runs: Sequence[RunFolder], seen: set[int]) -> Iterator[CaseEntry]:
    """Each case's entry; the ids of their classes are added to `seen`."""
    for row in (row for run in runs for row in run.cases()):
        seen.update(row.entry.classes)
        yield row.entry


def _cases_in(dataset: Path) -> int:
    return sum(
        entry.name.endswith(".json") and entry.name != MANIFEST_NAME
        for entry in os.scandir(dataset)
        if not entry.name.startswith(".")
    )
