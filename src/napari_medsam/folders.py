"""Where this program keeps things, unless an environment variable names another folder. None is made here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

CACHE_VARIABLE = "NAPARI_MEDSAM_CACHE"
JOURNAL_VARIABLE = "NAPARI_MEDSAM_JOURNAL"


def cache_folder() -> Path:
    """Embeddings: NAPARI_MEDSAM_CACHE, else in the user's cache folder."""
    return _folder(CACHE_VARIABLE, "embeddings", "cache")


def models_folder() -> Path:
    """Downloaded checkpoints and what is compiled from them: NAPARI_MEDSAM_MODELS, else in the user's cache folder."""
    return _folder("NAPARI_MEDSAM_MODELS", "models", "cache")


def decoders_folder() -> Path:
    """The user's decoders: NAPARI_MEDSAM_DECODERS, else in the user's data folder."""
    return _folder("NAPARI_MEDSAM_DECODERS", "decoders", "data")


def runs_folder() -> Path:
    """Training runs: NAPARI_MEDSAM_RUNS, else in the user's data folder."""
    return _folder("NAPARI_MEDSAM_RUNS", "runs", "data")


def journal_folder() -> Path:
    """Journals of work in progress: NAPARI_MEDSAM_JOURNAL, else in the user's data folder."""
    return _folder(JOURNAL_VARIABLE, "journal", "data")


def _folder(variable: str, name: str, kind: Literal["cache", "data"]) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path, user_data_path

    return (user_cache_path if kind == "cache" else user_data_path)("napari-medsam", appauthor=False) / name
