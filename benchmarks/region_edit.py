"""Painting a mask into a huge Labels layer of a real napari viewer: does it cost what it costs in a small one?

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/region_edit.py [--json OUT] [--side N] [--masks N]

The same masks of about 100 x 100 pixels go into a layer of 512 x 512 and into one of 8,000 x 8,000 through
`MaskLayer.write`, as one undoable step each. Baseline in the same run, on the large layer: set the pixels of the
array and refresh the layer, as plugins usually do. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lib.desk import Frames, settle, wait_seconds, wait_until
from lib.record import Figure, options_of, publish

SMALL, MASK = 512, 100


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--side", type=int, default=8_000)
    parser.add_argument("--masks", type=int, default=30)
    arguments = parser.parse_args()
    figures = measure(arguments.side, arguments.masks)
    note = (
        f"Discs of {MASK} px across in int32 labels in memory, the camera on {SMALL} x {SMALL} of the pixels. 'In the "
        "labels' is the edit with its undo record; 'on the canvas' ends when the repainted canvas has been handed "
        "to the screen. Undo is napari's own and refreshes the whole layer. Medians."
    )
    return publish(
        "region_edit",
        f"A mask into labels of {arguments.side} x {arguments.side}",
        figures,
        note,
        copy=arguments.json,
    )


def measure(side: int, masks: int) -> list[Figure]:
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1500, 920)
    settle()
    small, large = (_one_layer(viewer, extent, masks) for extent in (SMALL, side))
    viewer.close()
    large_name, small_name = f"{side} x {side}", f"{SMALL} x {SMALL}"
    figures = []
    for what, bar in (("in the labels", None), ("on the canvas", 1.3), ("undone, on the canvas", None)):
        figures += [
            Figure(f"mask {what}, {small_name}", small[what], "ms"),
            Figure(f"mask {what}, {large_name}", large[what], "ms"),
            Figure(f"mask {what}, large / small", large[what] / small[what], "x", bar),
        ]
    stock = large["pixels set and layer refreshed"]
    return [
        *figures,
        Figure(f"baseline, {large_name}: pixels set, layer refreshed, on the canvas", stock, "ms"),
    ]


def _one_layer(viewer: Any, side: int, masks: int) -> dict[str, float]:
    """Median milliseconds by step, in a layer that is added and removed again."""
    from napari_medsam.document.objects import PlaneKey
    from napari_medsam.layers.geometry import WorkAxes
    from napari_medsam.layers.masks import MaskLayer

    layer = viewer.add_labels(np.zeros((side, side), np.int32))
    canvas = MaskLayer(layer, WorkAxes(2, None))
    key = PlaneKey((None, None), (0, 1))
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0.0, SMALL / 2, SMALL / 2), 1.6
    frames = Frames()
    wait_seconds(1)
    rng, disc = np.random.default_rng(0), _disc()
    steps = np.array(
        [_paint_and_undo(canvas, key, frames, _place(rng), disc * number) for number in range(1, masks + 1)]
    )
    stock = [
        _timed(frames, lambda: _set_and_refresh(layer, _place(rng), disc))[1] for _ in range(min(masks, 5))
    ]
    frames.close()
    canvas.close()
    viewer.layers.remove(layer)
    inside, shown, undone = np.median(steps, axis=0)
    return {
        "in the labels": float(inside),
        "on the canvas": float(shown),
        "undone, on the canvas": float(undone),
        "pixels set and layer refreshed": float(np.median(stock)),
    }


def _paint_and_undo(canvas: Any, key: Any, frames: Frames, place: Any, disc: np.ndarray) -> tuple[float, ...]:
    row, col = place
    bounds = (row, col, row + MASK, col + MASK)
    inside, shown = _timed(frames, lambda: canvas.write(key, bounds, disc))
    _, undone = _timed(frames, canvas.layer.undo)
    _timed(frames, canvas.layer.redo)
    return inside, shown, undone


def _timed(frames: Frames, step: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a step, and until the canvas shows it."""
    wait_seconds(0.05)
    start = time.perf_counter()
    step()
    done = time.perf_counter()
    wait_until(lambda: frames.last > done, 30)
    return 1e3 * (done - start), 1e3 * (frames.last - start)


def _set_and_refresh(layer: Any, place: Any, disc: np.ndarray) -> None:
    row, col = place
    layer.data[row : row + MASK, col : col + MASK][disc > 0] = 99
    layer.refresh()


def _place(rng: np.random.Generator) -> tuple[int, int]:
    row, col = rng.integers(0, SMALL - MASK, 2)
    return int(row), int(col)


def _disc() -> np.ndarray:
    rows, cols = np.mgrid[:MASK, :MASK] - (MASK - 1) / 2
    return (np.hypot(rows, cols) < MASK / 2).astype(np.int64)


if __name__ == "__main__":
    sys.exit(main())
