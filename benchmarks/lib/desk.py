"""A real napari window for benchmarks: opening it, its event loop, mouse events, and how long the loop is away."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

SHAPE = (512, 512)
TICK_MS = 2


class Gaps:
    """How long the Qt event loop does not come round, by a timer of 2 ms."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._stamps = [time.perf_counter()]
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(lambda: self._stamps.append(time.perf_counter()))
        self._timer.start(TICK_MS)

    def stop(self) -> dict[str, float]:
        """Milliseconds between rounds: {"p95": ..., "max": ...}."""
        self._timer.stop()
        gaps = 1000 * np.diff([*self._stamps, time.perf_counter()])
        return {"p95": float(np.percentile(gaps, 95)), "max": float(gaps.max())}


class Frames:
    """When the canvas was last repainted, on the screen and not merely in memory."""

    def __init__(self) -> None:
        from napari_medsam.demo.pointer import find_canvas

        self.last = 0.0
        self._canvas: Any = find_canvas()
        self._canvas.frameSwapped.connect(self._on_frame)

    def close(self) -> None:
        self._canvas.frameSwapped.disconnect(self._on_frame)

    def _on_frame(self) -> None:
        self.last = time.perf_counter()


@contextmanager
def open_desk() -> Iterator[tuple[Any, Any]]:
    """A viewer with the MedSAM dock and an empty cache of its own: (viewer, dock)."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NAPARI_MEDSAM_CACHE"] = cache
        os.environ["NAPARI_MEDSAM_JOURNAL"] = f"{cache}/journal"
        from napari_medsam.ui.launch import open_window

        viewer = open_window(block=False)
        dock = find_dock()
        try:
            yield viewer, dock
        finally:
            dock.close_session()
            viewer.close()


def find_dock() -> Any:
    from qtpy.QtWidgets import QApplication

    return next(widget for widget in QApplication.allWidgets() if type(widget).__name__ == "MedSAMDock")


def show_embedded(viewer: Any, dock: Any, image: np.ndarray) -> None:
    """Add an image and wait until its plane, and what the view has embedded ahead, are embedded."""
    ready: list[bool] = []
    states: list[str] = []
    session = dock.controller.session
    session.shown.connect(lambda _plane, hit: ready.append(hit))
    session.progress.connect(lambda now: states.append(now.state))
    viewer.add_image(image, name="plane")
    wait_until(lambda: bool(ready) and states[-1:] == ["idle"], 120)


def settle() -> None:
    """Let Qt handle what is queued."""
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    """Run the event loop as napari does, sleeping in it, until ``done()``; gives up after some seconds."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {seconds} s")
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents, 5)


def wait_seconds(seconds: float) -> None:
    """Run the event loop for some time."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, seconds + 10)


def drag_box(viewer: Any, box: tuple[float, float, float, float]) -> float:
    """Draw a rectangle (r0, c0, r1, c1) with the mouse; return the moment before the button is released."""
    from napari_medsam.demo.pointer import Pointer

    pointer = Pointer(viewer)
    r0, c0, r1, c1 = box
    pointer.press((r0, c0))
    for step in (0.3, 0.6, 1.0):
        pointer.move((r0 + (r1 - r0) * step, c0 + (c1 - c0) * step))
    start = time.perf_counter()
    pointer.release((r1, c1))
    return start


def synthetic_image(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """(H, W, 3) uint8 squares of 32 pixels with a little noise; both sides multiples of 32."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 254, (shape[0] // 32, shape[1] // 32, 1)).repeat(3, axis=2)
    squares = np.kron(coarse, np.ones((32, 32, 1))).astype(np.uint8)
    return squares + rng.integers(0, 2, (*shape, 3), dtype=np.uint8)


def blocked_gaps(dock: Any, encodes: int = 4) -> dict[str, float]:
    """The baseline: the same encodes called in the main thread, as a script would."""
    from napari_medsam.embedding.embed import FieldRequest, embed
    from napari_medsam.image.plane import Plane

    session = dock.controller.session
    gaps = Gaps()
    for number in range(encodes):
        request = FieldRequest(Plane.from_array(synthetic_image(900 + number)), session.settings.contrast)
        embed(session.model, session.cache, request)
        settle()
    return gaps.stop()
