"""Boxes on a large image, beside micro-sam: what a user with such images would pick instead.

    python -m venv ms-venv
    ms-venv/bin/pip install micro-sam==1.8.14 mobilesam-mirror==1.0.0     # Python 3.11 or newer; both from PyPI
    python benchmarks/rival.py --rival ms-venv/bin/python [--json OUT] [--size N] [--boxes N] [--tile N] [--halo N]

micro-sam embeds an image tile by tile (`precompute_image_embeddings`), then answers boxes (`segment_from_box`). Tiles
and halo are those of its FAQ and its whole-slide example: 1024 and 256. Its smallest encoder is used, vit_t
(MobileSAM); `mobilesam-mirror` is MobileSAM's code, byte for byte, on PyPI; micro-sam itself points to GitHub for it.
Its weights are random, since only the cost is measured. Ours is `lite-medsam-box` with field "auto". Without --rival
ours is measured alone.

Comparable:
- The same image, boxes, cores and threads, on the CPU. Both give a (H, W) mask of a box and keep embeddings on disk.
- The model: a TinyViT of about 6 million parameters with SAM's prompt encoder and mask decoder. One encoding is about
  the same work (75 GFLOP ours, 78 micro-sam's: its input is larger, but shrinks earlier) and gives 64 x 64 features.
- Each task is a process of its own; loading the model and one warm-up are not in the times but in "start".

Not comparable:
- The accuracy of the masks: nothing is said of it here, and random weights have none.
- What is seen: micro-sam's encoder is shown 1024 x 1024 pixels, LiteMedSAM's 256 x 256. With that, a tile of 1024 and
  its halo is shown at 1.5 image pixels a pixel, a grid field of 512 at 2, the field around a small box at 1 or less.
  So to cover a plane takes many more fields than tiles, the more as grid fields overlap by half, tiles by their halo.
- When the work is done: micro-sam's documented way is all tiles first, so its first box waits for them all. A script
  that knows its boxes can pass `mask=` and have only their tiles embedded; that is measured as well. Ours encodes what
  a box needs, and each box elsewhere costs a field again until its surroundings are embedded; the time of such a box
  stands beside that of an embedded one. A window embeds the (at most 24) grid fields under its view, never all of a
  plane; that is measured because micro-sam always does it.
- The backend: ours is as installed (OpenVINO where it is there, named in the note), micro-sam's is torch in float32;
  --backend torch has ours in torch, too.
- Bytes: micro-sam keeps float32, ours float16; random weights may compress a little differently than real ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from large_plane import boxes_for, textured
from lib.record import Figure, options_of, publish
from rival_probe import AGAIN, BEGAN, Memory, bytes_under, clocked, material, since_start

CORES = 2
FIELD = 512  # side of the grid fields, in pixels
STARTS = 3  # processes whose median is told, where one takes seconds
BLOCK = 1024
MIB = 2**20
PROBE = Path(__file__).with_name("rival_probe.py")


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--rival", metavar="PYTHON", help="the Python that has micro-sam")
    parser.add_argument("--size", type=int, default=4096, help="side of the image")
    parser.add_argument("--boxes", type=int, default=8)
    parser.add_argument("--tile", type=int, default=1024, help="micro-sam's tile_shape")
    parser.add_argument("--halo", type=int, default=256)
    parser.add_argument("--backend", default="auto", help="of our encoder: auto, torch or openvino")
    parser.add_argument("--task", choices=sorted(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(TASKS[options.task](options.folder)))
        return 0
    if options.rival is None:
        print("No --rival PYTHON: micro-sam is left out, ours is measured alone.")
    if hasattr(os, "sched_setaffinity"):  # the processes started from here keep to these cores, too
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_material(folder, options)
        figures, note = measure(folder, options)
    return publish(
        "rival",
        f"An image of {options.size} x {options.size} beside micro-sam",
        figures,
        note,
        copy=options.json,
    )


def write_material(folder: Path, options: argparse.Namespace) -> None:
    """The image, the boxes and what both sides are set to."""
    rng = np.random.default_rng(0)
    block, size = textured(rng, BLOCK), options.size
    image = np.empty((size, size), np.uint8)
    for row in range(0, size, BLOCK):
        for col in range(0, size, BLOCK):
            place = image[row : row + BLOCK, col : col + BLOCK]
            shift = rng.integers(0, BLOCK, 2)
            place[:] = np.roll(block, shift, axis=(0, 1))[: place.shape[0], : place.shape[1]]
    np.save(folder / "image.npy", image)
    boxes = [[box.r0, box.c0, box.r1, box.c1] for box in boxes_for(size, options.boxes)]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    settings = {
        "threads": CORES,
        "tile": options.tile,
        "halo": options.halo,
        "backend": options.backend,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


# our side, one task a process ----------------------------------------------------------------------------------


class Ours:
    """LiteMedSAM on the CPU, loaded and warm, and how it answers boxes."""

    def __init__(self, folder: Path) -> None:
        import torch

        from napari_medsam.model.local import build_model

        settings = json.loads((folder / "settings.json").read_text())
        torch.set_num_threads(settings["threads"])
        self.model = build_model("lite-medsam-box", "cpu", backend=settings["backend"])
        encoded = self.model.encode(self.model.prepare(np.zeros((256, 256, 3), np.uint8)))
        self.model.decode(encoded.features, np.array([[60, 60, 190, 190]], np.float32))
        self.precision = encoded.precision
        self.start = since_start()

    def opened(self, image: np.ndarray, store: Path) -> Any:
        """A function from a box to its (H, W) mask, on an image of which nothing is known but what is stored."""
        from napari_medsam.embedding.cache import EmbeddingCache
        from napari_medsam.image.plane import Plane
        from napari_medsam.segment.segmenter import Segmenter

        plane, segmenter = Plane.from_array(image, rgb=False), Segmenter(self.model, EmbeddingCache(store))
        return lambda box: segmenter.segment(plane, [box], field="auto")[0]


def cold(folder: Path) -> dict[str, Any]:
    """The first box, boxes elsewhere, and all of them again."""
    ours = Ours(folder)
    image, boxes = material(folder)
    memory = Memory()
    first = [
        clocked(lambda n=n: ours.opened(image, folder / f"first{n}")(boxes[0]))[0] for n in range(STARTS)
    ]
    answer = ours.opened(image, folder / "ours")
    elsewhere = [clocked(lambda box=box: answer(box))[0] for box in boxes][1:]
    warm = [clocked(lambda box=box: answer(box))[0] for _ in range(AGAIN) for box in boxes]
    return {
        "first_s": median(first),
        "elsewhere_s": elsewhere,
        "warm_s": warm,
        "bytes": bytes_under(folder / "ours"),
        "precision": ours.precision,
        **memory.figures(),
    }


def cover(folder: Path) -> dict[str, Any]:
    """Every grid field of the plane, then the boxes on them; the plane's contrast is read once, as in a window."""
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.embedding.embed import FieldRequest, embed
    from napari_medsam.geometry import Box
    from napari_medsam.image.contrast import Contrast, resolve_contrast
    from napari_medsam.image.field import Field
    from napari_medsam.image.plane import Plane
    from napari_medsam.segment.decode import predict
    from napari_medsam.segment.fields import FieldPolicy, grid_field, grid_fields
    from napari_medsam.segment.prompt import boxes_in_plane

    ours = Ours(folder)
    image, boxes = material(folder)
    fields = grid_fields(Box.of_plane(image.shape), FIELD, image.shape)
    memory = Memory()
    plane, cache = Plane.from_array(image, rgb=False), EmbeddingCache(folder / "grid")

    def embedded(window: Any, field: Field) -> Any:
        return embed(ours.model, cache, FieldRequest(plane, Contrast(), field, window=window))

    def all_fields() -> Any:
        window = resolve_contrast(plane, Contrast())
        for field in fields:
            embedded(window, field)
        return window

    def answer(window: Any, box: Any) -> np.ndarray:
        field = grid_field(box, plane.shape, FieldPolicy(smallest=FIELD))
        return predict(ours.model, embedded(window, field), [box])[0].full(plane.shape)

    seconds, window = clocked(all_fields)
    prompts = boxes_in_plane(boxes, plane.shape)
    warm = [clocked(lambda box=box: answer(window, box))[0] for _ in range(AGAIN) for box in prompts]
    stored = bytes_under(folder / "grid")
    return {
        "embed_s": seconds,
        "pieces": len(fields),
        "warm_s": warm,
        "bytes": stored,
        **memory.figures(),
    }


def again(folder: Path) -> dict[str, Any]:
    """The first box from what `cold` has stored."""
    ours = Ours(folder)
    image, boxes = material(folder)
    seconds, _ = clocked(lambda: ours.opened(image, folder / "ours")(boxes[0]))
    return {"first_s": seconds, "start_s": ours.start}


TASKS = {"cold": cold, "cover": cover, "again": again}


# figures -------------------------------------------------------------------------------------------------------

Found = dict[str, Any]  # what one task told


def measure(folder: Path, options: argparse.Namespace) -> tuple[list[Figure], str]:
    """All figures, and the note beside them."""

    def ours(task: str) -> Found:
        return child([sys.executable, __file__, "--task", task, "--folder", str(folder)])

    def rival(task: str) -> Found:
        return child([options.rival, "-P", str(PROBE), task, str(folder)]) if options.rival else {}

    ours("again")  # compiles what is not compiled yet, and fills the page cache
    shutil.rmtree(folder / "ours")
    rival("weights")
    found = {
        "ours": ours("cold"),
        "tiles": rival("cold"),
        "lone": rival("lone"),
        "grid": ours("cover"),
    }
    starts = [(ours("again"), rival("again")) for _ in range(STARTS)]
    for name, results in zip(("ours again", "tiles again"), zip(*starts, strict=True), strict=True):
        found[name] = {key: median(result[key] for result in results) for key in results[0]}
    return rows(found), note(found, options)


def child(command: list[str]) -> Found:
    """What a task printed; its own words and exit status 1 when it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES), BEGAN: repr(time.time())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def rows(found: dict[str, Found]) -> list[Figure]:
    """The table: ours, then micro-sam, question by question; what was not measured is left out."""
    ours, grid, tiles, lone = (found[name] for name in ("ours", "grid", "tiles", "lone"))
    reopened, rival_reopened = found["ours again"], found["tiles again"]
    all_tiles, all_fields = f"micro-sam, all {tiles.get('pieces')} tiles", f"all {grid['pieces']} grid fields"
    table = [
        ("first box: ours", ours.get("first_s"), "s"),
        (f"first box: {all_tiles} first", tiles.get("first_s"), "s"),
        (
            f"first box: micro-sam, only the box's own tiles ({lone.get('pieces')}), by a mask",
            lone.get("first_s"),
            "s",
        ),
        ("first box: ours / micro-sam", quotient(ours, tiles, "first_s"), "x"),
        ("next box, elsewhere, its field not embedded: ours", middle(ours, "elsewhere_s", 1), "s"),
        ("next box, embedded: ours, on its field", middle(ours, "warm_s", 1e3), "ms"),
        ("next box, embedded: ours, on a grid field", middle(grid, "warm_s", 1e3), "ms"),
        ("next box, embedded: micro-sam", middle(tiles, "warm_s", 1e3), "ms"),
        (f"covering the plane: ours, {all_fields}", grid.get("embed_s"), "s"),
        (f"covering the plane: {all_tiles}", tiles.get("embed_s"), "s"),
        ("covering the plane: ours / micro-sam", quotient(grid, tiles, "embed_s"), "x"),
        ("on disk: ours, the boxes' fields", scaled(ours, "bytes", 1 / MIB), "MiB"),
        (f"on disk: ours, {all_fields}", scaled(grid, "bytes", 1 / MIB), "MiB"),
        (f"on disk: {all_tiles}", scaled(tiles, "bytes", 1 / MIB), "MiB"),
        ("memory, more by: ours, the boxes", ours.get("extra_mb"), "MB"),
        (f"memory, more by: ours, {all_fields}", grid.get("extra_mb"), "MB"),
        (f"memory, more by: {all_tiles}", tiles.get("extra_mb"), "MB"),
        ("memory, peak of the process: ours, the boxes", ours.get("peak_mb"), "MB"),
        (f"memory, peak of the process: {all_tiles}", tiles.get("peak_mb"), "MB"),
        ("opened again: first box, ours", scaled(reopened, "first_s", 1e3), "ms"),
        ("opened again: first box, micro-sam", scaled(rival_reopened, "first_s", 1e3), "ms"),
        ("opened again: start of the process, ours", reopened.get("start_s"), "s"),
        ("opened again: start of the process, micro-sam", rival_reopened.get("start_s"), "s"),
    ]
    return [Figure(what, value, unit) for what, value, unit in table if value is not None]


def scaled(found: Found, key: str, factor: float) -> float | None:
    return found[key] * factor if key in found else None


def middle(found: Found, key: str, factor: float) -> float | None:
    """The median of several times; None where there are none."""
    return median(found[key]) * factor if found.get(key) else None


def quotient(found: Found, other: Found, key: str) -> float | None:
    return found[key] / other[key] if key in found and key in other else None


def note(found: dict[str, Found], options: argparse.Namespace) -> str:
    beside = "micro-sam was not at hand (--rival PYTHON)."
    if options.rival is not None:
        beside = (
            f"micro-sam {found['tiles']['version']}, vit_t ({found['tiles']['parameters'] / 1e6:.1f} million "
            f"parameters in the encoder, random), tiles of {options.tile} px with a halo of {options.halo}, "
            "float32."
        )
    return (
        f"One textured uint8 image and {options.boxes} boxes of 40 to 120 px; both on {CORES} cores and threads, on "
        f"the CPU, the model loaded and warm. Ours: lite-medsam-box, {found['ours']['precision']}, grid fields of "
        f"{FIELD} px that overlap by half. {beside} Times of boxes are medians, the tiles and the grid fields are "
        "embedded once; memory is beyond the image and the warm model. What is comparable and what is not stands in "
        "benchmarks/rival.py: an encoding is about the same work, from a sixteenth of the pixels in LiteMedSAM, and "
        "nothing is said of accuracy."
    )


if __name__ == "__main__":
    sys.exit(main())
