"""Every folder is where its variable says, a home folder's sign included, else among the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from napari_medsam import folders

FOLDERS = [
    ("NAPARI_MEDSAM_CACHE", folders.cache_folder, "embeddings"),
    ("NAPARI_MEDSAM_MODELS", folders.models_folder, "models"),
    ("NAPARI_MEDSAM_DECODERS", folders.decoders_folder, "decoders"),
    ("NAPARI_MEDSAM_RUNS", folders.runs_folder, "runs"),
    ("NAPARI_MEDSAM_JOURNAL", folders.journal_folder, "journal"),
]


@pytest.mark.parametrize(("variable", "folder", "name"), FOLDERS)
def test_the_variable_names_it_and_it_is_not_made(
    variable: str, folder: Callable[[], Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(variable, "~/mine")
    assert folder() == tmp_path / "mine"
    assert not folder().exists()
    monkeypatch.delenv(variable)
    assert folder().name == name
    assert "napari-medsam" in folder().parts
