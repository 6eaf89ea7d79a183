"""What every test gets: caches of its own, and a check that no thread is left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Pools that the libraries underneath keep for the life of the process.
_LIBRARY_THREADS = ("zarr", "asyncio", "ThreadPoolExecutor", "tqdm", "Dask", "pydevd", "MainThread")
_PATIENCE = 5.0


@pytest.fixture(scope="session")
def models_folder_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloads and compiled encoders: one folder for the whole run, since compiling takes seconds."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def own_caches(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, models_folder_of_the_run: Path
) -> None:
    """A test's embeddings go to a folder of its own, never to the user's cache."""
    monkeypatch.setenv("NAPARI_MEDSAM_CACHE", str(tmp_path_factory.mktemp("embeddings")))
    monkeypatch.setenv("NAPARI_MEDSAM_MODELS", str(models_folder_of_the_run))
    own = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("NAPARI_MEDSAM_DECODERS", str(own / "decoders"))
    monkeypatch.setenv("NAPARI_MEDSAM_RUNS", str(own / "runs"))
    monkeypatch.setenv("NAPARI_MEDSAM_JOURNAL", str(own / "journal"))


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _PATIENCE
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith(_LIBRARY_THREADS):
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"the thread {thread.name!r} outlives the test"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real image sets; tests that need it skip where it is not at hand."""
    chosen = os.environ.get("NAPARI_MEDSAM_DATA")
    folder = Path(chosen) if chosen else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set NAPARI_MEDSAM_DATA to their folder")
    return folder
