"""Desks to work at, and a check for threads and widgets that are left behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from fake_medsam import FakeLoader, FakeMedSAM
from npe2 import PluginManager
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication
from ui_desk import Desk


@pytest.fixture
def open_desk(make_napari_viewer: Any, qtbot: Any, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Makes a desk: ``open_desk(show=True)`` for the mouse, ``models={name: FakeMedSAM}``, ``errors=[...]``."""
    desks: list[Desk] = []

    def make(
        *,
        show: bool = False,
        models: dict[str, FakeMedSAM] | None = None,
        errors: Sequence[Exception] = (),
        **options: Any,
    ) -> Desk:
        viewer = make_napari_viewer(show=show)
        if show:
            viewer.window.resize(1200, 900)
        loader = FakeLoader(models or {"lite-medsam": FakeMedSAM()}, list(errors))
        desks.append(Desk(viewer, qtbot, tmp_path, loader, **options))
        return desks[-1]

    yield make
    for desk in desks:
        desk.loader.gate.set()
        for model in desk.loader.models.values():
            model.release()
    desks.clear()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


@pytest.fixture
def mouse_desk(open_desk: Callable[..., Desk]) -> Desk:
    """A desk whose window is open; ``Pointer(desk.viewer)`` is the hand."""
    return open_desk(show=True)


@pytest.fixture
def image() -> np.ndarray:
    """A bright 256 x 256 plane: the model's frame, pixel for pixel."""
    return np.random.default_rng(0).integers(100, 256, (256, 256), dtype=np.uint8)


@pytest.fixture(scope="session", autouse=True)
def modules_out_of_the_way() -> Iterator[None]:
    """Each viewer's end costs several full collections: keep what was imported out of them, it is not garbage."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_plugin_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """napari looks for plugins with each viewer, which takes a quarter of a second; no test here needs them."""
    monkeypatch.setattr(PluginManager, "discover", lambda *_, **__: 0)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test after which one of our threads or widgets lives on, although its viewer is gone."""
    before = _left()
    yield
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    gc.collect()  # whole, not by generations: napari's next fixture wants the viewer gone
    left = _left() - before
    assert not left, f"these outlive the viewer: {sorted(left)}"


def _left() -> set[str]:
    threads = {f"thread {t.name} {t.ident}" for t in threading.enumerate() if t.name.startswith("medsam")}
    widgets = [
        widget for widget in QApplication.allWidgets() if type(widget).__module__.startswith("napari_medsam")
    ]
    return threads | {f"{type(widget).__name__} {id(widget)}" for widget in widgets}
