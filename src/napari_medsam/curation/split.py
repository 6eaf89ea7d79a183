"""Which cases train, which validate, which judge: by group, so that no patient or movie is on two sides."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_medsam.errors import CaseError

if TYPE_CHECKING:
    from napari_medsam.curation.dataset import CuratedDataset

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Stems of the cases on each side. by: "group", "case" where all cases are of one group, or "table"."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    by: str

    def roles(self) -> dict[str, tuple[str, ...]]:
        """The stems by role."""
        return {"train": self.train, "val": self.val, "test": self.test}


def split_cases(
    groups: Mapping[str, str | None], seed: int = 0, shares: tuple[float, float] = (0.15, 0.25)
) -> Split:
    """Divide cases into training, validation and test sides, a group always as a whole.

    groups: stem -> group, None for a case that is a group of its own. shares: of the groups that validate and that
    judge. The groups are put into an order that depends on their names and the seed alone, so a case that is added
    moves few others. The test side gets at least one group where there are two, the validation side one where there
    are five; training always keeps at least one. When all cases are of one group they are divided case by case, and
    `by` says so. Raises CaseError when there are no cases.
    """
    if not groups:
        raise CaseError("There are no cases to divide. Export corrected masks first.")
    named = {stem: group if group is not None else stem for stem, group in groups.items()}
    by = "group"
    if len(set(named.values())) == 1 and len(named) > 1:
        named, by = {stem: stem for stem in named}, "case"
    order = sorted(set(named.values()), key=lambda group: _rank(seed, group))
    tests = min(max(1, round(shares[1] * len(order))), len(order) - 1)
    vals = min(max(1, round(shares[0] * len(order))), len(order) - tests - 1) if len(order) >= 5 else 0
    sides = {
        group: "test" if n < tests else "val" if n < tests + vals else "train"
        for n, group in enumerate(order)
    }
    return _split({stem: sides[group] for stem, group in named.items()}, by)


def side_of(group: str, seed: int = 0, shares: tuple[float, float] = (0.1, 0.1)) -> Role:
    """The side that a group is on by its name and the seed alone: cases that are added never move another one.

    shares: the chance of a group to validate and to judge. Unlike `split_cases` it promises no side a group, so it
    is for many groups. Raises CaseError for shares that leave nothing to train on.
    """
    if min(shares) < 0 or sum(shares) >= 1:
        raise CaseError(
            f"The shares {shares} leave no group to train on. Give two that add up to less than 1."
        )
    place = int(_rank(seed, group)[:16], 16) / 16**16
    return "test" if place < shares[1] else "val" if place < sum(shares) else "train"


def read_split(path: str | os.PathLike[str], stems: Iterable[str]) -> Split:
    """A split given by a table: CSV lines of a case's stem and `train`, `val` or `test`; a header line is allowed.

    Cases that the table does not name are left out. Raises CaseError: the file cannot be read, names a case twice or
    one that is not there, a role nobody knows, or leaves no case to train on.
    """
    known = set(stems)
    roles: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a mark
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CaseError(
            f"The split {path} cannot be read ({error}). Give a CSV file: stem,train|val|test."
        ) from error
    for number, row in rows:
        stem, role = row[0].strip().removesuffix(".npz"), row[1].strip() if len(row) > 1 else ""
        if number == 1 and role and role not in ROLES and stem not in known:
            continue
        if role not in ROLES:
            raise CaseError(
                f"{path}, line {number}: {','.join(row)!r}. Write the case's stem and train, val or test."
            )
        if stem in roles:
            raise CaseError(
                f"{path}, line {number}: {stem!r} comes a second time. Keep one line for each case."
            )
        roles[stem] = role
    unknown = sorted(set(roles) - known)
    if unknown:
        raise CaseError(
            f"{path} names {len(unknown)} cases that are not in the dataset, {unknown[0]!r} first."
        )
    split = _split(roles, "table")
    if not split.train:
        raise CaseError(f"{path} leaves no case to train on. Give at least one the role train.")
    return split


def sides_of(dataset: CuratedDataset, table: Path | None, seed: int) -> Split:
    """How a dataset is divided: as a table says, or by group and seed. Raises CaseError."""
    if table is not None:
        return read_split(table, dataset.cases)
    groups: dict[str, str | None] = dict.fromkeys(dataset.cases)
    groups.update({entry.stem: entry.group for entry in dataset.manifest.cases if entry.stem in groups})
    return split_cases(groups, seed)


def _split(roles: Mapping[str, str], by: str) -> Split:
    def side(role: Role) -> Sequence[str]:
        return sorted(stem for stem, given in roles.items() if given == role)

    return Split(tuple(side("train")), tuple(side("val")), tuple(side("test")), by)


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()
