"""MedSAM in napari: boxes to masks, corrections to training cases.

Importing this package imports neither torch, Qt nor napari; the names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medsam.curation.dataset import CuratedDataset
    from napari_medsam.segment.segmenter import Segmenter, load_model

try:
    __version__ = version("napari-medsam")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

_LAZY = {
    "CuratedDataset": "napari_medsam.curation.dataset",
    "Segmenter": "napari_medsam.segment.segmenter",
    "load_model": "napari_medsam.segment.segmenter",
}

__all__ = ["CuratedDataset", "Segmenter", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
