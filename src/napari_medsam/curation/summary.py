"""What a folder of cases holds for training: counts, and how the cases would be divided. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Overview:
    """Counts over a dataset. classes: objects by class name. split: cases by role; by: see `curation.split.Split`."""

    cases: int = 0
    objects: int = 0
    corrected: int = 0
    groups: int = 0
    classes: Mapping[str, int] | None = None
    split: Mapping[str, int] | None = None
    by: str = ""

    @property
    def lines(self) -> list[str]:
        """The counts in words, one line each; a single line for a dataset without cases."""
        if not self.cases:
            return ["No cases yet. Correct masks, then add or export them."]
        untouched = self.objects - self.corrected
        lines = [
            f"{_count(self.cases, 'case')}, {_count(self.objects, 'object')}: "
            f"{self.corrected} corrected, {untouched} untouched",
            "Classes: " + ", ".join(f"{name} {number}" for name, number in (self.classes or {}).items()),
        ]
        if self.split:
            sides = ", ".join(f"{number} {_ROLES[role]}" for role, number in self.split.items())
            lines.append(f"{_BY[self.by]}: {sides}")
        return lines


_ROLES = {"train": "train", "val": "validate", "test": "judge"}
_BY = {
    "group": "Divided by group",
    "case": "Divided by case: all cases are in one group",
    "table": "As the table says",
}


def look_at(folder: Path, seed: int = 0, table: Path | None = None) -> Overview:
    """Count what is in a folder; one that does not exist, or is empty, gives an overview of nothing.

    Reads the manifest; published cases without a sidecar are read themselves, so leave this to a worker thread.
    Raises CaseError: the folder or the table cannot be read.
    """
    from napari_medsam.curation.dataset import CuratedDataset  # with scipy: not while a window is being built
    from napari_medsam.curation.split import sides_of

    if not folder.is_dir() or not any(folder.iterdir()):
        return Overview()
    dataset = CuratedDataset(folder)
    if not len(dataset):
        return Overview()
    found = dataset.summary()
    split = sides_of(dataset, table, seed)
    return Overview(
        cases=found.cases,
        objects=found.objects,
        corrected=found.corrected,
        groups=found.groups,
        classes=dict(found.classes),
        split={role: len(stems) for role, stems in split.roles().items()},
        by=split.by,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
