from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_medsam.embedding.cache import EmbeddingCache


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "store")


@pytest.fixture(autouse=True)
def _no_leaked_worker() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "medsam-embedding"]
