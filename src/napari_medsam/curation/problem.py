"""What can be wrong with a case or a dataset on disk, said so that a person knows what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_medsam.errors import CaseError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file, what is the matter with it, and the next step."""

    file: Path
    what: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.next_step}"


class BrokenCase(CaseError):
    """A `CaseError` that carries its `problem`, so that a validation can list it beside others."""

    def __init__(self, file: Path, what: str, next_step: str) -> None:
        self.problem = Problem(file, what, next_step)
        super().__init__(str(self.problem))


class NewerFormat(BrokenCase):
    """A file of a later version than this package writes: sound, but not ours to rebuild or overwrite."""
