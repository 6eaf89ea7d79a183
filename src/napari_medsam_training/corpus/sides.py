"""Which side of the split each curated case is on: by its group's name or a table, copies of an image together."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from napari_medsam.curation.split import ROLES, Role, side_of
from napari_medsam.errors import CaseError
from napari_medsam_training.corpus.rows import CaseRow, LeftRow, RunRecord


class Copies:
    """Images of the same pixels: finds the first of them, and joins the groups that they are in."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, str]] = {}
        self._joined: dict[str, str] = {}

    def add(self, pixels: str, key: str, group: str) -> str | None:
        """Note a case; gives the key of an earlier one of the same pixels, if there is one."""
        digest = bytes.fromhex(pixels)
        known = self._first.setdefault(digest, (key, group))
        if known == (key, group):
            return None
        one, other = sorted((self.group(known[1]), self.group(group)))
        if one != other:
            self._joined[other] = one
        return known[0]

    def group(self, name: str) -> str:
        """The name under which all groups are divided that are joined with one: the least of them."""
        while name in self._joined:
            name = self._joined[name]
        return name


def read_table(path: Path, kind: str) -> dict[str, str]:
    """name -> value of a CSV file of two columns; a first line that begins with "stem", "case" or "key" is a header.

    kind: what the values are, for messages; of "side" only train, val and test are taken. Raises CaseError.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CaseError(
            f"The table {path} cannot be read ({error}). Give a CSV file: stem,{kind}."
        ) from error
    if rows and rows[0][0].strip().lower() in ("stem", "case", "key"):
        rows = rows[1:]
    table: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        name, value = row[0].strip(), row[1].strip() if len(row) > 1 else ""
        if not value or (kind == "side" and value not in ROLES):
            wanted = "train, val or test" if kind == "side" else f"a {kind}"
            raise CaseError(f"{path}, row {number}: {','.join(row)!r}. Write the image's stem and {wanted}.")
        if table.setdefault(name, value) != value:
            raise CaseError(f"{path}, row {number}: {name!r} comes twice with different values. Keep one.")
    return table


def read_sides(path: Path) -> dict[str, Role]:
    """name -> side of such a file."""
    return {name: ROLES[ROLES.index(side)] for name, side in read_table(path, "side").items()}


def side_in_run(about: RunRecord, row: CaseRow, copies: Copies) -> Role | None:
    """The side of a case; None where a table was given that does not name it.

    A table names it by its whole key, its file's stem or the stem it has in the dataset.
    """
    table = about.sides
    if table is None:
        return side_of(copies.group(row.group), about.seed)
    names = (row.key, row.file, row.stem)
    return next((table[name] for name in names if name in table), None)


def unnamed(table: Mapping[str, str], rows: Iterable[CaseRow | LeftRow]) -> list[str]:
    """Names in a table that no row answers to."""
    left = set(table)
    for row in rows:
        left -= {row.key, row.key.rpartition("/")[2], row.stem if isinstance(row, CaseRow) else row.key}
    return sorted(left)
