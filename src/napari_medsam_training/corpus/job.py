"""What one run of curation does: plain values that travel to any worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from napari_medsam.image.contrast import Contrast
from napari_medsam_training.corpus.objects import ObjectRules

VERSION = 1  # of what curation does: another one curates everything again


@dataclass(frozen=True)
class Job:
    """One folder of images and one of masks of one modality and target.

    contrast: None goes by the modality. percentiles: for a contrast by percentiles. axis: of a volume, 0, 1 or 2 of
    (z, row, col), None for the coarsest. channels: of images that have several.
    """

    images: str
    masks: str
    dataset: str
    modality: str
    target: str
    rules: ObjectRules
    contrast: Contrast | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    axis: int | None = None
    channels: tuple[int, ...] | None = None

    def settings(self) -> dict[str, Any]:
        """All but the folders, as JSON values."""
        data = asdict(self)
        for folder in ("images", "masks", "dataset"):
            del data[folder]
        return {"version": VERSION, **json.loads(json.dumps(data))}

    def digest(self) -> str:
        """The same for jobs that would make the same cases of the same files."""
        return hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()
