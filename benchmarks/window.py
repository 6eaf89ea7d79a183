"""The window under load: box to mask, first mask, event-loop gaps, start-up.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py [--json OUT] [--boxes N] [--starts N]

Every figure is taken in a real napari viewer with the real LiteMedSAM and mouse events on the canvas. A box is
timed from the release of the button, to its mask in the labels layer and to the canvas that shows it. Start-up and
the first mask are measured in processes of their own, with an empty cache; napari alone and the MedSAM window
are started in turn. The baseline for gaps is the same encode called in the main thread, as a script would. Exit
status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from lib.desk import (
    Frames,
    Gaps,
    blocked_gaps,
    drag_box,
    find_dock,
    open_desk,
    settle,
    show_embedded,
    synthetic_image,
    wait_seconds,
    wait_until,
)
from lib.record import Figure, options_of, publish

NOTE = (
    "A 512 x 512 RGB image in a window of 1500 x 920. 'Mask in the labels' ends when the labels layer holds the "
    "mask; 'on the canvas' when the repainted canvas has been handed to the screen. "
    "'box to' starts once all that the view wants is embedded; some boxes then have a field of their own encoded, "
    "which the next box waits for."
)


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--boxes", type=int, default=40)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--probe", choices=("napari", "medsam", "loading", "first"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        _probe(arguments.probe)
        return 0
    figures = [
        *_start_figures(arguments.starts),
        *_first_figures(arguments.starts),
        *_live_figures(arguments.boxes),
    ]
    return publish("window", "The window: start, first mask, box to mask", figures, NOTE, copy=arguments.json)


# processes of their own ---------------------------------------------------------------------------------------


def _start_figures(times: int) -> list[Figure]:
    plain, ours = [], []
    for _ in range(times):
        plain.append(_child("napari")["ready_s"])
        ours.append(_child("medsam")["ready_s"])
    later = float(np.median(np.subtract(ours, plain)))
    return [
        Figure("napari alone, ready after", float(np.median(plain)), "s"),
        Figure("napari-medsam open, ready after", float(np.median(ours)), "s"),
        Figure("napari-medsam open, later than napari by", later, "s", 1.5),
    ]


def _first_figures(times: int) -> list[Figure]:
    first = [_child("first")["first_mask_s"] for _ in range(times)]
    gaps = [_child("loading")["gap_max_ms"] for _ in range(times)]
    return [
        Figure("first mask after adding an image, cold", float(np.median(first)), "s", 5.0),
        Figure(
            "event-loop gap while the model loads, longest, median of starts",
            float(np.median(gaps)),
            "ms",
            150,
        ),
    ]


def _child(probe: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "NAPARI_MEDSAM_CACHE": cache,
            "NAPARI_MEDSAM_JOURNAL": f"{cache}/journal",
            "STARTED": str(time.time()),
        }
        command = [sys.executable, __file__, "--probe", probe]
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(printed.strip().splitlines()[-1]))


def _probe(which: str) -> None:
    started = float(os.environ["STARTED"])
    import napari

    if which == "napari":
        viewer = napari.Viewer()
        settle()
        print(json.dumps({"ready_s": time.time() - started}))
        viewer.close()
        return
    from napari_medsam.ui.launch import open_window

    viewer = open_window(block=False)
    settle()
    ready = time.time() - started
    dock = find_dock()
    if which == "loading":
        print(json.dumps(_loading_gap(dock)))
    elif which == "medsam":
        print(json.dumps({"ready_s": ready, "torch_loaded": "torch" in sys.modules}))
    else:
        print(json.dumps(_first_mask(viewer, dock)))
    dock.close_session()
    viewer.close()


def _loading_gap(dock: Any) -> dict[str, float]:
    """The longest gap while nothing happens but the loading of the model."""
    gaps = Gaps()
    wait_until(lambda: dock.controller.session.model is not None, 60)
    return {"gap_max_ms": gaps.stop()["max"]}


def _first_mask(viewer: Any, dock: Any) -> dict[str, float]:
    """From adding an image to its first painted mask: the user draws while the model still loads."""
    painted: list[int] = []
    dock.controller.painted.connect(painted.append)
    start = time.perf_counter()
    viewer.add_image(synthetic_image(0), name="cold")
    dock.tools.draw.click()
    drag_box(viewer, (150, 160, 300, 330))
    wait_until(lambda: bool(painted), 60)
    return {"first_mask_s": time.perf_counter() - start}


# one live window ----------------------------------------------------------------------------------------------


def _live_figures(boxes: int) -> list[Figure]:
    with open_desk() as (viewer, dock):
        show_embedded(viewer, dock, synthetic_image(0))
        dock.tools.draw.click()
        wait_until(
            lambda: not dock.progress.bar.isVisible(), 60
        )  # the fields under the view are embedded too
        idle = Gaps()
        wait_seconds(2)
        rest = idle.stop()
        figures = [
            Figure("event-loop gap, idle, p95", rest["p95"], "ms"),
            Figure("event-loop gap, idle, longest", rest["max"], "ms"),
            *_box_figures("box to", timed_boxes(viewer, dock, boxes), 120),
            *_busy_figures(viewer, dock, boxes // 2),
        ]
        blocked = blocked_gaps(dock)
    return [
        *figures,
        Figure("event-loop gap, the same encodes in the main thread, p95", blocked["p95"], "ms"),
        Figure("event-loop gap, the same encodes in the main thread, longest", blocked["max"], "ms"),
    ]


def _busy_figures(viewer: Any, dock: Any, boxes: int) -> list[Figure]:
    """Gaps while planes that are not cached are embedded, then prompts on the embedded plane meanwhile."""
    from napari_medsam.embedding.embed import FieldRequest
    from napari_medsam.image.plane import Plane

    session = dock.controller.session

    def queue(first: int, count: int) -> list:
        planes = [Plane.from_array(synthetic_image(first + number)) for number in range(count)]
        requests = [FieldRequest(plane, session.settings.contrast, None, 20, -7) for plane in planes]
        return [session._scheduler.submit(request) for request in requests]

    busy = queue(1, 12)
    gaps = Gaps()
    wait_until(lambda: all(done.done() for done in busy), 120)
    alone = gaps.stop()
    busy = queue(100, 200)
    times = timed_boxes(viewer, dock, boxes)
    still = sum(not done.done() for done in busy)
    session._scheduler.cancel(-7)
    if still < 1:
        raise SystemExit("the encoder ran out of work before the prompts were done")
    return [
        Figure("event-loop gap while embedding, p95", alone["p95"], "ms", 20),
        Figure("event-loop gap while embedding, longest", alone["max"], "ms", 150),
        *_box_figures("while embedding, box to", times, 300),
    ]


def timed_boxes(viewer: Any, dock: Any, count: int) -> np.ndarray:
    """(count, 3) milliseconds from a box's release: to its first mask in the labels, to the canvas that shows it,
    and to the mask from the box's own field, which the next box waits for."""
    rng = np.random.default_rng(0)
    work, session = dock.controller.work, dock.controller.session
    times = []
    painted: dict[int, float] = {}

    def note(object_id: int) -> None:
        painted.setdefault(object_id, time.perf_counter())

    frames = Frames()
    dock.controller.painted.connect(note)
    for _ in range(count):
        r0, c0 = rng.integers(20, 300, 2)
        height, width = rng.integers(60, 180, 2)
        work.prompts.layer.mode = "add_rectangle"
        before = {record.id for record in work.document}
        start = drag_box(viewer, (r0, c0, r0 + height, c0 + width))
        wait_until(lambda before=before: bool(painted.keys() - before), 30)
        first = painted[max(painted)]
        wait_until(lambda first=first: frames.last > first, 30)
        on_canvas = frames.last
        wait_until(lambda: not session.awaited(work.document), 30)
        times.append((first - start, on_canvas - start, time.perf_counter() - start))
        wait_seconds(0.1)  # as a hand would; what the last box set off is then done
    dock.controller.painted.disconnect(note)
    frames.close()
    return 1000 * np.array(times)


def _box_figures(what: str, times: np.ndarray, bar: float) -> list[Figure]:
    figures = []
    for column, end in enumerate(("mask in the labels", "mask on the canvas")):
        figures += [
            Figure(f"{what} {end}, median", float(np.median(times[:, column])), "ms"),
            Figure(f"{what} {end}, p95", float(np.percentile(times[:, column], 95)), "ms", bar),
        ]
    sharp = float(np.median(times[:, 2]))
    return [*figures, Figure(f"{what} sharpest mask (its own field encoded), median", sharp, "ms")]


if __name__ == "__main__":
    sys.exit(main())
