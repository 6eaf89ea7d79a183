"""The small MedSAM as fixtures, and folders of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetune_fakes import PatchEncoder, tiny_model

from napari_medsam.model.local import MedSAM


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder()


@pytest.fixture
def tiny(encoder: PatchEncoder) -> MedSAM:
    """Frame of 64 pixels, features (256, 16, 16), logits 64 x 64; random weights."""
    return tiny_model(encoder)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders and runs of a test never go among the user's."""
    monkeypatch.setenv("NAPARI_MEDSAM_DECODERS", str(tmp_path / "decoders"))
    monkeypatch.setenv("NAPARI_MEDSAM_RUNS", str(tmp_path / "runs"))
