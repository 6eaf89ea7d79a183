"""What curation writes down: what became of each pair, and what a run was started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from napari_medsam.curation.manifest import CaseEntry
from napari_medsam.curation.split import Role
from napari_medsam_training.corpus.job import Settings


@dataclass(frozen=True)
class CaseRow:
    """A pair that is a case. classes: objects by class name. planes: that hold objects. pixels: hash of the image.

    entry: of the dataset's manifest.
    """

    key: str
    name: str
    stem: str
    group: str
    classes: Mapping[str, int]
    planes: int
    pixels: str
    remarks: tuple[str, ...]
    entry: CaseEntry

    @property
    def file(self) -> str:
        """The image's own name, without folder and suffix."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class LeftRow:
    """A pair that is none, and why; name: of its image."""

    key: str
    name: str
    mask: str
    kind: str
    reason: str


@dataclass(frozen=True)
class RunRecord:
    """A run: its folders and settings, the names of its shards' records, and how its cases are divided: by a table of
    sides, or by group and seed."""

    images: str
    masks: str
    settings: Settings
    records: tuple[str, ...]
    seed: int
    sides: Mapping[str, Role] | None
