"""A click to its mask beside a box to its mask, in the real window, in turns.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/click_latency.py [--json OUT] [--rounds N]

Each round draws a box with the mouse and waits for the last mask of it; then it clicks once (plus) in the box, with the
mouse as well. Both are timed from the release of the button to the mask in the labels. The window is the real one,
LiteMedSAM runs in its own process, and what the view wants is embedded before the first round.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from lib.desk import drag_box, open_desk, show_embedded, synthetic_image, wait_seconds, wait_until
from lib.record import Figure, options_of, publish


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with open_desk() as (viewer, dock):
        show_embedded(viewer, dock, synthetic_image(0))
        dock.tools.draw.click()
        wait_until(lambda: not dock.progress.bar.isVisible(), 60)
        times = 1000 * np.array(timed_rounds(viewer, dock, options.rounds))
    boxes, clicks = times.T
    ratio = float(np.percentile(clicks, 95) / np.percentile(boxes, 95))
    figures = [
        Figure("box to mask in the labels, median", float(np.median(boxes)), "ms"),
        Figure("box to mask in the labels, p95", float(np.percentile(boxes, 95)), "ms"),
        Figure("click to mask in the labels, median", float(np.median(clicks)), "ms"),
        Figure("click to mask in the labels, p95", float(np.percentile(clicks, 95)), "ms"),
        Figure("click / box, p95", ratio, "", 1.2),
        Figure("click / box, median", float(np.median(clicks) / np.median(boxes)), ""),
    ]
    return publish(
        "click_latency",
        "The window: a click to its mask, beside a box",
        figures,
        "A 512 x 512 RGB image.",
        copy=options.json,
    )


def timed_rounds(viewer: Any, dock: Any, count: int) -> list[tuple[float, float]]:
    """Seconds from release to mask, of a box and of a click on it, each round."""
    from napari_medsam.demo.pointer import Pointer

    rng = np.random.default_rng(0)
    work, session = dock.controller.work, dock.controller.session
    pointer = Pointer(viewer)
    painted: list[float] = []
    dock.controller.painted.connect(lambda _: painted.append(time.perf_counter()))
    times = []
    for _ in range(count):
        r0, c0 = rng.integers(20, 300, 2)
        height, width = rng.integers(60, 180, 2)
        dock.tools.draw.click()
        painted.clear()
        began = drag_box(viewer, (r0, c0, r0 + height, c0 + width))
        wait_until(lambda: bool(painted), 30)
        box = painted[0] - began
        wait_until(lambda: not session.awaited(work.document), 30)
        dock.tools.click.click()
        wait_seconds(0.3)
        at = (r0 + height / 2, c0 + 0.1 * width)
        pointer.move(at)
        wait_seconds(0.1)
        painted.clear()
        pointer.press(at)
        began = time.perf_counter()
        pointer.release(at)
        wait_until(lambda: bool(painted), 30)
        times.append((box, painted[0] - began))
        wait_until(lambda: not session.awaited(work.document), 30)
        wait_seconds(0.1)
    return times


if __name__ == "__main__":
    sys.exit(main())
