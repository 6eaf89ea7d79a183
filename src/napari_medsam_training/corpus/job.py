"""What one run of curation does: plain values that travel to any worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from napari_medsam.image.contrast import Contrast
from napari_medsam.records import plain
from napari_medsam_training.corpus.objects import ObjectRules

VERSION = 1  # of what curation does: another one curates everything again


@dataclass(frozen=True)
class Settings:
    """How pairs become cases of one modality and target.

    contrast: None goes by the modality. percentiles: for a contrast by percentiles. axis: of a volume, 0, 1 or 2 of
    (z, row, col), None for the coarsest. channels: of images that have several.
    """

    modality: str
    target: str
    rules: ObjectRules
    contrast: Contrast | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    axis: int | None = None
    channels: tuple[int, ...] | None = None
    version: int = VERSION

    def digest(self) -> str:
        """The same for settings that would make the same cases of the same files."""
        return hashlib.sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """One folder of images and one of masks, and the dataset that their cases go to."""

    images: str
    masks: str
    dataset: str
    settings: Settings
