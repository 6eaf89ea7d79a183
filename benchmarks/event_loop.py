"""Does the window stay alive while 40 fields embed and the canvas is panned?

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/event_loop.py [--json OUT] [--fields N]

A timer of 2 ms in a real napari window with the real LiteMedSAM measures how long the Qt event loop does not come
round. Baselines in the same run: the idle window, the same panning without any embedding (what napari and the
drawing of the canvas cost by themselves), napari's progress indicator alone, and the same encodes called in the
main thread, as a script would. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from typing import Any

from lib.desk import (
    Gaps,
    blocked_gaps,
    open_desk,
    show_embedded,
    synthetic_image,
    wait_seconds,
    wait_until,
)
from lib.record import Figure, options_of, publish

SIDE = 2048
FIELD = 128  # smaller than what the view has embedded ahead by itself, so that every field is new
PAN_MS = 30
TRAVEL = 0.5  # of the plane's width that the camera travels


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--fields", type=int, default=40)
    parser.add_argument("--probe", choices=("indicator",), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        print(json.dumps(_indicator_gaps()))
        return 0
    figures = measure(arguments.fields)
    note = (
        f"An RGB image of {SIDE} x {SIDE} in a window of 1500 x 920, panned every {PAN_MS} ms by moving the camera; "
        f"fields of {FIELD} x {FIELD}. Panning alone shows what drawing the canvas on the CPU costs."
    )
    return publish(
        "event_loop", "The event loop while embedding and panning", figures, note, copy=arguments.json
    )


def measure(fields: int) -> list[Figure]:
    """Gaps when idle, panned, panned while embedding, and with the encodes in the main thread."""
    with open_desk() as (viewer, dock):
        show_embedded(viewer, dock, synthetic_image(0, (SIDE, SIDE)))
        session = dock.controller.session
        session.configure(ahead=False)  # the fields counted here are the only ones
        wait_seconds(2)
        idle = Gaps()
        wait_seconds(3)
        figures = gap_figures("idle", idle.stop())
        figures += _panned(viewer)
        figures += _panned_while_embedding(viewer, session, fields)
        figures += gap_figures("plain napari, its progress indicator turning", _indicator_in_child())
        return figures + gap_figures("the same encodes in the main thread", blocked_gaps(dock))


def gap_figures(what: str, gaps: dict[str, float], bars: tuple[float | None, float | None] = (None, None)):
    return [
        Figure(f"{what}: gap, p95", gaps["p95"], "ms", bars[0]),
        Figure(f"{what}: gap, longest", gaps["max"], "ms", bars[1]),
    ]


def _indicator_in_child() -> dict[str, float]:
    """In a process of its own: napari shows the indicator for a window's first progress bar only."""
    command = [sys.executable, __file__, "--probe", "indicator"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(printed.strip().splitlines()[-1]))


def _indicator_gaps() -> dict[str, float]:
    """Gaps of a napari window without MedSAM while a progress bar is open and nothing is computed."""
    import napari
    from napari.utils import progress

    viewer = napari.Viewer()
    viewer.window.resize(1500, 920)
    viewer.add_image(synthetic_image(0, (SIDE, SIDE)))
    wait_seconds(2)
    bar: Any = progress(total=2, desc="baseline")
    wait_seconds(1)
    gaps = Gaps()
    wait_seconds(4)
    found = gaps.stop()
    bar.close()
    viewer.close()
    return found


def _panned(viewer: Any) -> list[Figure]:
    hand, gaps = Hand(viewer), Gaps()
    wait_seconds(5)
    found = gaps.stop()
    hand.stop()
    return [
        *gap_figures("panned, nothing embedding", found),
        Figure("panned, nothing embedding: moves a second", hand.moves / 5, ""),
    ]


def _panned_while_embedding(viewer: Any, session: Any, fields: int) -> list[Figure]:
    from napari_medsam.embedding.embed import FieldRequest
    from napari_medsam.image.field import Field
    from napari_medsam.image.plane import Plane

    plane = Plane.from_array(synthetic_image(7, (SIDE, SIDE)))
    across = 2 * SIDE // FIELD - 1
    places = [divmod(number, across) for number in range(fields)]
    hand, gaps, start = Hand(viewer), Gaps(), time.perf_counter()
    wanted = [Field(row * FIELD // 2, col * FIELD // 2, FIELD, FIELD, "grid") for row, col in places]
    waiting = [
        session._scheduler.submit(FieldRequest(plane, session.settings.contrast, field, 20, -7))
        for field in wanted
    ]
    wait_until(lambda: all(done.done() for done in waiting), 180)
    seconds = time.perf_counter() - start
    found = gaps.stop()
    hand.stop()
    hits = sum(done.result().hit for done in waiting)
    return [
        *gap_figures(f"panned while {fields} fields embed", found, (20, 150)),
        Figure(f"panned while {fields} fields embed: fields that were not new", hits, "", 0),
        Figure(f"panned while {fields} fields embed: moves a second", hand.moves / seconds, ""),
        Figure(f"panned while {fields} fields embed: all embedded after", seconds, "s"),
    ]


class Hand:
    """Moves the camera round in a circle, a step every 30 ms."""

    def __init__(self, viewer: Any) -> None:
        from qtpy.QtCore import QTimer

        self.moves = 0
        self._camera = viewer.scene.camera
        self._camera.zoom = 2.0
        self._timer = QTimer()
        self._timer.timeout.connect(self._move)
        self._timer.start(PAN_MS)

    def stop(self) -> None:
        self._timer.stop()

    def _move(self) -> None:
        self.moves += 1
        angle = self.moves / 50
        reach = SIDE * TRAVEL / 2
        row, col = SIDE / 2 + reach * math.sin(angle), SIDE / 2 + reach * math.cos(angle)
        self._camera.center = (0.0, row, col)


if __name__ == "__main__":
    sys.exit(main())
