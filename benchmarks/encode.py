"""Encoding one field with LiteMedSAM, and the time from nothing to the first mask.

    python benchmarks/encode.py [--json OUT] [--rounds N]

Baseline in the same run: the published network in torch eager float32, as its inference script calls it. The
rivals take turns. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

import numpy as np
from lib.paired import ratio, take_turns
from lib.published import published_lite
from lib.record import Figure, options_of, publish

FIRST_MASK = """
import time
start = time.perf_counter()
import numpy as np
from napari_medsam.model.local import build_model
model = build_model("lite-medsam", "cpu")
encoded = model.encode(model.prepare(np.zeros((256, 256, 3), np.uint8)))
model.decode(encoded.features, np.array([[60, 60, 190, 190]], np.float32))
print(time.perf_counter() - start)
"""


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    figures = [*encode_figures(arguments.rounds), *first_mask_figures()]
    return publish("encode", "Encoding a field, and the first mask", figures, _note(), copy=arguments.json)


def encode_figures(rounds: int) -> list[Figure]:
    """Each backend's time as a share of the published call's."""
    import torch

    from napari_medsam.model.local import build_model

    net = published_lite()
    image = np.random.default_rng(0).integers(0, 255, (256, 200, 3), dtype=np.uint8)
    models = {"torch": build_model("lite-medsam", "cpu", backend="torch")}
    if find_spec("openvino") is not None:
        models["openvino"] = build_model("lite-medsam", "cpu", backend="openvino")
    prepared = models["torch"].prepare(image)
    pixels = torch.from_numpy(prepared)[None]

    def stock() -> object:
        with torch.no_grad():
            return net.image_encoder(pixels)

    rivals: dict[str, Callable[[], object]] = {"published": stock}
    for name, model in models.items():
        rivals[name] = lambda model=model: model.encode(prepared)
    times = take_turns(rivals, rounds, warm=2)
    figures = [Figure("published network, torch eager float32", median(times["published"]), "s")]
    bars = {"torch-float32": 0.75, "openvino-float32": 0.5, "openvino-bfloat16": 0.3}
    for name, model in models.items():
        figures.append(Figure(model.precision, median(times[name]), "s"))
        share = ratio(times, name, "published")
        figures.append(Figure(f"{model.precision} / published", share, "x", bars.get(model.precision)))
    default = "openvino" if "openvino" in models else "torch"
    figures.append(Figure("default backend / published", ratio(times, default, "published"), "x", 0.3))
    return figures


def first_mask_figures() -> list[Figure]:
    """A new process from its first import to a mask: with nothing compiled yet, and from the second start on."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NAPARI_MEDSAM_MODELS": folder}
        seconds = []
        for _ in range(4):
            command = [sys.executable, "-c", FIRST_MASK]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds.append(float(done.stdout))
    return [
        Figure("first mask in a new process, first start ever", seconds[0], "s", 5.0),
        Figure("first mask in a new process, later starts", median(seconds[1:]), "s", 3.5),
    ]


def _note() -> str:
    return (
        "Random pixels of 256 x 200, zero-padded. Ratios are medians over rounds in which each took one turn."
    )


if __name__ == "__main__":
    sys.exit(main())
