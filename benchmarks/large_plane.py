"""A 20,000 x 20,000 plane beside a 512 x 512 one: the same boxes, the same answers, at the same cost?

    python benchmarks/large_plane.py [--json OUT] [--side N] [--boxes N]

The plane is a uint8 zarr that is written here chunk by chunk; labels are zarrs, too. A Session with the real
LiteMedSAM answers boxes on both in turn and each mask is pasted into its labels region by region, as the window
does it. Every array that is read or written lies behind a recorder, which tells the largest piece anybody took.
Memory is the peak of a process that does all this on the large plane, less that of one that does it on the small
one. Baseline in the same run: read the plane, resize it to the encoder's input, encode. Exit status 1 when a bar
is missed.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lib.record import Figure, options_of, publish

from napari_medsam.document.compose import redraw, redraw_box
from napari_medsam.document.objects import Document, PartKey, PlaneKey
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.geometry import Box, union
from napari_medsam.image.plane import Plane
from napari_medsam.session.session import Session
from napari_medsam.session.settings import Settings

CHUNK, LABEL_CHUNK, SMALL = 1024, 256, 512
LARGEST_PIECE = 2**22  # pixels: 4 Mpx, a hundredth of the plane
OPENED = 3
KEY = PlaneKey((None, None), (0, 1))
AGAIN = 5


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=12)
    parser.add_argument("--probe", choices=("small", "large", "stock"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        print(json.dumps(_probe(arguments.probe, arguments.folder, arguments.boxes)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_planes(folder, arguments.side)
        figures = [*time_figures(folder, arguments.boxes), *memory_figures(folder, arguments.boxes)]
    note = (
        f"Image chunks of {CHUNK}, labels int32 in chunks of {LABEL_CHUNK}, all of them in the page cache. Boxes of "
        "40 to 120 px at random places, the same sizes on both planes. Ratios of cold answers are medians over pairs "
        "taken in turn. A new plane is one of which nothing is known, its contrast included. Painted means: asked, "
        "found in the cache, decoded, and written to the labels."
    )
    return publish(
        "large_plane",
        f"A plane of {arguments.side} x {arguments.side} pixels",
        figures,
        note,
        copy=arguments.json,
    )


# planes on disk ------------------------------------------------------------------------------------------------


def write_planes(folder: Path, side: int) -> None:
    """large.zarr and small.zarr, uint8 with blobs, and empty int32 labels beside each."""
    import zarr

    rng = np.random.default_rng(0)
    block = textured(rng, CHUNK)
    for name, extent, chunk in (("large", side, CHUNK), ("small", SMALL, SMALL)):
        image = zarr.create_array(
            folder / f"{name}.zarr", shape=(extent, extent), chunks=(chunk, chunk), dtype="uint8"
        )
        for row in range(0, extent, chunk):
            for col in range(0, extent, chunk):
                piece = np.roll(block, rng.integers(0, CHUNK, 2), axis=(0, 1))
                image[row : row + chunk, col : col + chunk] = piece[
                    : min(chunk, extent - row), : min(chunk, extent - col)
                ]
        zarr.create_array(
            folder / f"{name}-labels.zarr",
            shape=(extent, extent),
            chunks=(LABEL_CHUNK, LABEL_CHUNK),
            dtype="int32",
        )


def textured(rng: np.random.Generator, side: int) -> np.ndarray:
    """(side, side) uint8: bright blobs of 20 to 60 px radius on a noisy ground."""
    rows, cols = np.mgrid[:side, :side]
    image = np.full((side, side), 60.0)
    for _ in range(side * side // 40_000):
        row, col = rng.uniform(0, side, 2)
        radius, bright = rng.uniform(20, 60), rng.uniform(60, 150)
        reach = np.hypot(rows - row, cols - col) / radius
        image = np.maximum(image, 60 + bright * (reach < 1) * (1 - 0.3 * reach))
    return (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)


@dataclass(eq=False)
class Recorded:
    """An array that remembers the size of the largest piece read from or written to it, in pixels."""

    array: Any
    largest: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        piece = np.asarray(self.array[key])
        self.largest = max(self.largest, piece.size)
        return piece

    def __setitem__(self, key: Any, value: Any) -> None:
        self.largest = max(self.largest, np.size(value))
        self.array[key] = value

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self.largest = max(self.largest, int(np.prod(self.shape)))
        raise AssertionError("somebody asked for the whole plane")


# a session without a window ------------------------------------------------------------------------------------


@dataclass(eq=False)
class Bench:
    """A session on one plane whose answers are taken and painted in this thread, as a window's are."""

    image: Recorded
    labels: Recorded
    session: Session
    posts: queue.SimpleQueue[Callable[[], None]]
    document: Document = field(default_factory=Document)

    def __post_init__(self) -> None:
        self.plane = Plane.from_array(self.image, rgb=False, name="plane")
        self.shown: list[bool] = []
        self.session.predicted.connect(self._paint)
        self.session.failed.connect(lambda *failure: sys.exit(str(failure[2])))
        self.session.shown.connect(lambda _plane, hit: self.shown.append(hit))

    @classmethod
    def open(cls, folder: Path, name: str, model: Any) -> Bench:
        import zarr

        arrays = [Recorded(zarr.open_array(folder / f"{part}.zarr")) for part in (name, f"{name}-labels")]
        posts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        cache = EmbeddingCache(Path(tempfile.mkdtemp(dir=folder)))
        session = Session(Settings(), cache=cache, post=posts.put, load=lambda *_, **__: model)
        session.warm_up()
        bench = cls(*arrays, session, posts)
        bench._run_until(lambda: session.model is not None)
        return bench

    def add(self, box: Box) -> int:
        return self.document.add(KEY, box, 1).id

    def answer(self, object_id: int) -> float:
        """Seconds from asking for an object's mask until its sharpest one is painted."""
        start = time.perf_counter()
        self.session.request(self.document, [(object_id, KEY)], self.plane)
        self._run_until(lambda: not self.session.awaited(self.document))
        return time.perf_counter() - start

    def show(self, view: Box) -> None:
        """Embed what a view shows, until the first field is ready; the rest is dropped."""
        self.session.show(self.plane, view)
        self._run_until(lambda: bool(self.shown))
        self.session.cancel()

    def _run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.posts.get(timeout=60)()

    def _paint(self, document: Document, key: PartKey) -> None:
        """Paste a mask the way the window's MaskLayer does: read the region, redraw it, set what changed."""
        part = document.part(*key)
        bounds = redraw_box(part)
        if bounds is None:
            return
        r0, c0, r1, c1 = bounds
        region = self.labels[r0:r1, c0:c1]
        drawn = redraw(region, bounds, part, document.in_plane(KEY), "corrected")
        if (drawn != region).any():
            self.labels[r0:r1, c0:c1] = drawn
        document.update_part(*key, extent=union(part.extent, part.patch.box))


def boxes_for(side: int, count: int) -> Iterator[Box]:
    """Boxes of 40 to 120 px, spread over a plane; the same sizes for every plane."""
    rng, places = np.random.default_rng(5), np.random.default_rng(6)
    for _ in range(count):
        height, width = rng.uniform(40, 120, 2)
        row, col = places.uniform(0, side - 120, 2)
        yield Box(row, col, row + height, col + width)


# figures -------------------------------------------------------------------------------------------------------


def time_figures(folder: Path, boxes: int) -> list[Figure]:
    """Boxes on fields that are not embedded, then the same boxes again, on both planes in turn."""
    from napari_medsam.model.local import build_model

    model = build_model("lite-medsam", "cpu")
    model.encode(model.prepare(np.zeros((256, 256, 3), np.uint8)))
    first, benches = [], []
    for _ in range(OPENED):
        for bench in benches:
            bench.session.close()
        benches = [Bench.open(folder, name, model) for name in ("small", "large")]
        objects = [[bench.add(box) for box in boxes_for(bench.plane.shape[0], boxes)] for bench in benches]
        first.append([bench.answer(own.pop(0)) for bench, own in zip(benches, objects, strict=True)])
    new = np.array(first)
    cold = np.array(
        [[b.answer(o) for b, o in zip(benches, pair, strict=True)] for pair in zip(*objects, strict=True)]
    )
    warm = np.array(
        [
            [b.answer(o) for b, o in zip(benches, pair, strict=True)]
            for _ in range(AGAIN)
            for pair in zip(*objects, strict=True)
        ]
    )
    pieces = benches[1].image.largest, benches[1].labels.largest
    for bench in benches:
        bench.session.close()
    ninety_fifth = 1e3 * np.percentile(warm, 95, axis=0)
    return [
        Figure(f"first box on a new {SMALL} x {SMALL} image", median(new[:, 0]), "s"),
        Figure("first box on the new large plane", median(new[:, 1]), "s"),
        Figure("first box on a new plane, large / small", median(new[:, 1] / new[:, 0]), "x", 1.5),
        Figure(f"box on a cold field, {SMALL} x {SMALL}", median(cold[:, 0]), "s"),
        Figure("box on a cold field, large plane", median(cold[:, 1]), "s"),
        Figure("box on a cold field, large / small", median(cold[:, 1] / cold[:, 0]), "x", 1.5),
        Figure(f"embedded: box to painted, {SMALL} x {SMALL}, p95", ninety_fifth[0], "ms"),
        Figure("embedded: box to painted, large plane, p95", ninety_fifth[1], "ms"),
        Figure("embedded: box to painted, p95, large / small", ninety_fifth[1] / ninety_fifth[0], "x", 1.3),
        Figure("embedded: box to painted, median, large / small", median(warm[:, 1] / warm[:, 0]), "x"),
        Figure(
            "answering: largest piece of the image read at once",
            pieces[0] / 2**20,
            "Mpx",
            LARGEST_PIECE / 2**20,
        ),
        Figure(
            "answering: largest piece of the labels at once", pieces[1] / 2**20, "Mpx", LARGEST_PIECE / 2**20
        ),
    ]


def memory_figures(folder: Path, boxes: int) -> list[Figure]:
    """Peaks of processes that embed a view and answer boxes on one plane, and of the stock way."""
    found = {name: _child(name, folder, boxes) for name in ("small", "large", "stock")}
    extra = {name: found[name]["peak_mb"] - found["small"]["peak_mb"] for name in ("large", "stock")}
    piece = max(found["large"]["image_mpx"], found["large"]["labels_mpx"])
    return [
        Figure(f"peak memory, {SMALL} x {SMALL}", found["small"]["peak_mb"], "MB"),
        Figure("peak memory, large plane, more by", extra["large"], "MB", 300),
        Figure("with its whole view embedded: largest piece at once", piece, "Mpx", LARGEST_PIECE / 2**20),
        Figure("stock way (read, resize, encode): peak memory, more by", extra["stock"], "MB"),
        Figure("stock way: time to the embedding", found["stock"]["seconds"], "s"),
    ]


def _child(probe: str, folder: Path, boxes: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--probe", probe, "--folder", str(folder), "--boxes", str(boxes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _probe(which: str, folder: Path, boxes: int) -> dict[str, float]:
    from napari_medsam.model.local import build_model

    model = build_model("lite-medsam", "cpu")
    if which == "stock":
        return _stock(folder, model)
    bench = Bench.open(folder, which, model)
    side = bench.plane.shape[0]
    for box in boxes_for(side, boxes):
        bench.answer(bench.add(box))
    bench.show(Box(0, 0, min(side, 900), min(side, 1500)))
    bench.shown.clear()
    bench.show(Box(0, 0, side, side))
    bench.session.close()
    return {
        "peak_mb": peak_mb(),
        "image_mpx": bench.image.largest / 2**20,
        "labels_mpx": bench.labels.largest / 2**20,
    }


def _stock(folder: Path, model: Any) -> dict[str, float]:
    """The plane as an array, resized, encoded: what a script that knows no fields does."""
    import zarr
    from PIL import Image

    start = time.perf_counter()
    pixels = zarr.open_array(folder / "large.zarr")[:]
    Image.MAX_IMAGE_PIXELS = None
    small = Image.fromarray(pixels).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    model.encode(model.prepare(np.asarray(small)))
    return {"peak_mb": peak_mb(), "seconds": time.perf_counter() - start}


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB (10^6)."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells includes the parent before the program started
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
