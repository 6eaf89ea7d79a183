"""The window while a decoder is trained: event-loop gaps, and how much longer a box takes than before.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/training_window.py [--json OUT] [--boxes N]

The training is the product's own process on a dataset of synthetic discs; the baseline, the same window and boxes with
nothing in training, is taken in the same run, before and after it. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lib.desk import Gaps, open_desk, show_embedded, synthetic_image, wait_seconds, wait_until
from lib.record import Figure, options_of, publish
from window import timed_boxes

from napari_medsam.curation.case import Case, CaseObject
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.run import TrainingProcess


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--boxes", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_desk() as (viewer, dock):
        show_embedded(viewer, dock, synthetic_image(0))
        dock.tools.draw.click()
        wait_until(lambda: not dock.progress.bar.isVisible(), 60)
        before = _measured(viewer, dock, arguments.boxes)
        training = _training(Path(folder))
        try:
            during = _measured(viewer, dock, arguments.boxes)
            if not training.alive:
                raise SystemExit("training ended before the boxes were done")
        finally:
            training.close()
        after = _measured(viewer, dock, arguments.boxes)
    return publish(
        "training_window",
        "The window while a decoder is trained",
        _figures(before, during, after),
        copy=arguments.json,
    )


def _measured(viewer: Any, dock: Any, boxes: int) -> tuple[dict[str, float], np.ndarray]:
    """Gaps of five seconds at rest, and milliseconds from each box's release to its mask in the labels."""
    gaps = Gaps()
    wait_seconds(5)
    rest = gaps.stop()
    return rest, timed_boxes(viewer, dock, boxes)[:, 0]


def _training(folder: Path) -> TrainingProcess:
    """A run that has reached its first epoch."""
    dataset = CuratedDataset(folder / "dataset", create=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        dataset.append(_discs(rng, f"case {number}"))
    seen: list[str] = []
    request = TrainingRequest(
        dataset.path,
        "benchmark",
        config=FinetuneConfig(epochs=10_000, patience=10_000),
        output=folder / "decoder.safetensors",
    )
    process = TrainingProcess(request, folder / "run", lambda event: seen.append(event.kind))
    wait_until(lambda: "training" in seen or "failed" in seen, 300)
    if "failed" in seen:
        raise SystemExit("training failed")
    return process


def _discs(rng: np.random.Generator, name: str) -> Case:
    rows, cols = np.ogrid[:256, :256]
    labels = np.zeros((256, 256), np.uint8)
    for label in range(1, 5):
        row, col = rng.uniform(30, 226, 2)
        labels[(rows - row) ** 2 + (cols - col) ** 2 < 18**2] = label
    pixels = (rng.normal(90, 10, (256, 256)) + 80 * (labels > 0)).clip(0, 255).astype(np.uint8)
    objects = tuple(CaseObject(int(label), "disc", 1) for label in np.unique(labels[labels > 0]))
    return Case(np.repeat(pixels[..., None], 3, axis=2), labels, (1.0, 1.0), objects, group=name)


def _figures(
    before: tuple[dict[str, float], np.ndarray],
    during: tuple[dict[str, float], np.ndarray],
    after: tuple[dict[str, float], np.ndarray],
) -> list[Figure]:
    idle = np.concatenate([before[1], after[1]])
    busy = during[1]
    figures = [
        Figure("event-loop gap at rest, p95", before[0]["p95"], "ms"),
        Figure("event-loop gap while training, p95", during[0]["p95"], "ms", 20),
        Figure("event-loop gap while training, longest", during[0]["max"], "ms"),
    ]
    for word, of in (("median", np.median), ("p95", lambda times: np.percentile(times, 95))):
        bar = 2.0 if word == "p95" else None
        figures += [
            Figure(f"box to mask in the labels, idle, {word}", float(of(idle)), "ms"),
            Figure(f"box to mask in the labels, while training, {word}", float(of(busy)), "ms"),
            Figure(f"while training / idle, {word}", float(of(busy) / of(idle)), "x", bar),
        ]
    return figures


if __name__ == "__main__":
    sys.exit(main())
