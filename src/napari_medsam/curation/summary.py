"""What a folder of cases holds for training: counts, and how the cases would be divided. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_medsam.curation.dataset import CuratedDataset, Summary
from napari_medsam.curation.split import sides_of

_ROLES = {"train": "train", "val": "validate", "test": "judge"}
_BY = {
    "group": "Divided by group",
    "case": "Divided by case: all cases are in one group",
    "table": "As the table says",
}


@dataclass(frozen=True)
class Overview(Summary):
    """Counts over a dataset. split: cases by role; by: see `curation.split.Split`."""

    split: Mapping[str, int] = field(default_factory=dict)
    by: str = ""

    @property
    def lines(self) -> list[str]:
        """The counts in words, one line each; a single line for a dataset without cases."""
        if not self.cases:
            return ["No cases yet. Correct masks, then add or export them."]
        untouched = self.objects - self.corrected
        sides = ", ".join(f"{number} {_ROLES[role]}" for role, number in self.split.items())
        return [
            f"{_count(self.cases, 'case')}, {_count(self.objects, 'object')}: "
            f"{self.corrected} corrected, {untouched} untouched",
            "Classes: " + ", ".join(f"{name} {number}" for name, number in self.classes.items()),
            f"{_BY[self.by]}: {sides}",
        ]


def look_at(folder: Path, seed: int = 0, table: Path | None = None) -> Overview:
    """Count what is in a folder; one that does not exist, or is empty, gives an overview of nothing.

    Reads the manifest; published cases without a sidecar are read themselves, so leave this to a worker thread.
    Raises CaseError: the folder or the table cannot be read.
    """
    dataset = CuratedDataset(folder) if folder.is_dir() and any(folder.iterdir()) else ()
    if not dataset:
        return Overview(0, 0, 0, {}, 0)
    split = sides_of(dataset, table, seed)
    sides = {role: len(stems) for role, stems in split.roles().items()}
    return Overview(**vars(dataset.summary()), split=sides, by=split.by)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
