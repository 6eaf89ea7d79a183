"""Many masks at once: 1,000 into the labels, and 400 boxes of a file adopted.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/bulk.py [--json OUT] [--masks N] [--boxes N]

Everything is measured in a real napari window with the MedSAM dock: how long it takes, the longest time for which
the event loop does not come round, and whether one undo takes all of it back. The masks are disks of 40 px in labels
of 4096 x 4096; they are there already as predictions, so that no decoder takes part. The baseline draws them one by
one by the same code, each as a step of its own with the texts of all shapes written after it. The 400 boxes are
shapes of a layer from elsewhere that is put to work: each gets its mask from the built-in model. Exit status 1 when
a bar is missed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from lib.desk import TICK_MS, open_desk, settle, show_embedded, synthetic_image, wait_seconds, wait_until
from lib.record import Figure, options_of, publish

SIDE, SIZE = 4096, 40
ONE_BY_ONE = 50  # masks of the baseline, all of which would take long

NOTE = (
    "A window of 1500 x 920. A gap is how long the event loop did not come round; 'busy' is what the window's thread "
    "worked meanwhile, which is less where other programs have the processors. 'idle' is the same window with nothing "
    "to do."
)


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--masks", type=int, default=1000)
    parser.add_argument("--boxes", type=int, default=400)
    arguments = parser.parse_args()
    figures = [*_masks(arguments.masks), *_boxes(arguments.boxes)]
    return publish("bulk", "Many masks at once", figures, NOTE, copy=arguments.json)


class Turns:
    """How long the event loop does not come round, and how much of it its thread worked, by a timer of 2 ms."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._stamps = [self._now()]
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(lambda: self._stamps.append(self._now()))
        self._timer.start(TICK_MS)

    def stop(self) -> tuple[float, float]:
        """The longest gap and the longest work between two rounds, in milliseconds."""
        self._timer.stop()
        gap, busy = 1000 * np.diff([*self._stamps, self._now()], axis=0).max(axis=0)
        return float(gap), float(busy)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()


# masks that are known ------------------------------------------------------------------------------------------


def _masks(count: int) -> list[Figure]:
    with open_desk() as (viewer, dock):
        dock.controller.session.configure(ahead=False, field="whole")
        show_embedded(viewer, dock, np.zeros((SIDE, SIDE), np.uint8))
        work = dock.controller.work
        labels = work.painting.ready().layer
        idle = Turns()
        wait_seconds(3)
        idle_ms, _ = idle.stop()
        what = f"{count:,} masks of {SIZE} px into {SIDE} x {SIDE}"
        one_by_one = _one_by_one(work, _predictions(work, ONE_BY_ONE))
        parts = _predictions(work, count)
        seconds, worked_s, (gap_ms, busy_ms) = _draw(work, parts)
        drawn = len(np.unique(labels.data)) - 1
        start = time.perf_counter()
        labels.undo()
        settle()
        undo_s = time.perf_counter() - start
        left = len(np.unique(labels.data)) - 1
        return [
            Figure("idle: gap, longest", idle_ms, "ms"),
            Figure(f"{what}, one by one: time, from {ONE_BY_ONE} of them", one_by_one * count, "s"),
            Figure(f"{what}: time", seconds, "s", 1.0),
            Figure(f"{what}: time that the window's thread was busy", worked_s, "s"),
            Figure(f"{what}: gap, longest", gap_ms, "ms", 100),
            Figure(f"{what}: busy in one piece, longest", busy_ms, "ms"),
            Figure(f"{what}: of them in the labels", drawn, "masks", count, at_least=True),
            Figure(f"{what}: still there after one undo", left, "masks", 0),
            Figure(f"{what}: the undo, which is napari's own", undo_s, "s"),
        ]


def _predictions(work: Any, count: int) -> list[Any]:
    """Add objects with predictions to the document, of disks that lie in a grid; nothing is drawn."""
    from napari_medsam.geometry import Box
    from napari_medsam.image.field import whole_field
    from napari_medsam.segment.prediction import Prediction

    rows, cols = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    disk = rows**2 + cols**2 <= (SIZE / 2) ** 2
    side = int(np.ceil(count**0.5))
    plane = work.shown_key()
    parts = []
    for number in range(count):
        row, col = ((SIDE // side) * place for place in divmod(number, side))
        box = Box(row, col, row + SIZE, col + SIZE)
        record = work.document.add(plane, box, 1)
        found = Prediction(box, row, col, disk, 0.9, "", whole_field((SIDE, SIDE)))
        work.document.predicted(record.id, plane, found)
        parts.append((record.id, plane))
    settle()
    return parts


def _draw(work: Any, parts: list[Any]) -> tuple[float, float, tuple[float, float]]:
    """Seconds until all masks are in the labels, those of work, and the longest turn until their canvas is drawn."""
    painted: list[int] = []
    work.painting.painted.connect(painted.extend)
    wait_seconds(0.5)
    turns, start, worked = Turns(), time.perf_counter(), time.thread_time()
    work.painting.draw(parts)
    wait_until(lambda: len(painted) >= len(parts), 60)
    seconds, worked_s = time.perf_counter() - start, time.thread_time() - worked
    wait_seconds(0.5)  # the canvas, the table and the journal follow
    return seconds, worked_s, turns.stop()


def _one_by_one(work: Any, parts: list[Any]) -> float:
    """Seconds a mask takes when each is a step of its own; they are taken away again."""
    start = time.perf_counter()
    for part in parts:
        work.painting.draw([part])
        settle()
    seconds = (time.perf_counter() - start) / len(parts)
    for part in parts:
        work.painting.remove(part)
    return seconds


# boxes that are adopted ----------------------------------------------------------------------------------------


def _boxes(count: int) -> list[Figure]:
    with open_desk() as (viewer, dock):
        dock.controller.session.configure(ahead=False, field="whole")
        show_embedded(viewer, dock, synthetic_image(0, (1024, 1024)))
        side = int(np.ceil(count**0.5))
        step = 1000 / side
        places = [(5 + step * (k // side), 5 + step * (k % side)) for k in range(count)]
        edge = 0.7 * step
        shapes = viewer.add_shapes(
            [np.array([[r, c], [r, c + edge], [r + edge, c + edge], [r + edge, c]]) for r, c in places]
        )
        viewer.layers.selection.active = shapes
        painted: list[int] = []
        dock.controller.painted.connect(painted.append)
        wait_seconds(1)
        turns, start = Turns(), time.perf_counter()
        dock.tools.draw.click()
        adopted = time.perf_counter() - start
        wait_until(lambda: len(set(painted)) >= count, 400)
        seconds = time.perf_counter() - start
        wait_seconds(2)  # their texts follow
        gap_ms, busy_ms = turns.stop()
        return [
            Figure(f"{count} boxes adopted: in one piece, until the window is back", adopted, "s"),
            Figure(f"{count} boxes adopted: until all masks are there", seconds, "s"),
            Figure(f"{count} boxes adopted: gap, longest", gap_ms, "ms"),
            Figure(f"{count} boxes adopted: busy in one piece, longest", busy_ms, "ms"),
        ]


if __name__ == "__main__":
    sys.exit(main())
