"""Curation and embedding of a large corpus: memory, what a kill costs, and what a second Dask worker gives.

    python benchmarks/scale.py [--few 2000] [--many 20000] [--timed 1000] [--only memory kills workers]

Synthetic pairs (96 x 96 PNG), the recipes in training/ as anybody runs them, and an encoder that costs next to
nothing. Takes an hour or so at full size, and 8 GB of disk. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lib.record import Figure, publish
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

TITLES = {
    "memory": "peak memory of curation and embedding",
    "kills": "what a kill costs",
    "workers": "a second Dask worker",
}
NOTE = (
    "Throughput counts the whole command: start of Python, planning, tables and report, on a Dask cluster whose "
    "workers are warm. Both runs read the same files."
)
SIDE = 96
MIB = 2**20


# Pairs


def make_pairs(folder: Path, count: int) -> None:
    """`count` images of a bright ellipse on noise, and their masks; the same for a count, always."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows, cols = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng(0).normal(60, 15, (SIDE * 2, SIDE * 2))
    for number in range(count):
        rng = np.random.default_rng(number)
        (r, c), (a, b) = rng.uniform(30, 66, 2), rng.uniform(12, 28, 2)
        inside = ((rows - r) / a) ** 2 + ((cols - c) / b) ** 2 < 1
        top, left = rng.integers(0, SIDE, 2)
        image = noise[top : top + SIDE, left : left + SIDE] + 90 * inside + number % 17
        for name, pixels in (("images", image.clip(0, 255)), ("masks", inside * 255)):
            Image.fromarray(pixels.astype("u1")).save(folder / name / f"{number:06d}.png", compress_level=1)


# The recipes, in processes of their own


def curate_command(folder: Path, dataset: Path, *more: str) -> list[str]:
    script = str(ROOT / "training" / "curate.py")
    places = [str(folder / "images"), str(folder / "masks"), str(dataset)]
    return [sys.executable, script, *places, "--modality", "US", "--target", "lesion", "--quiet", *more]


def embed_command(dataset: Path, store: Path, *more: str) -> list[str]:
    return [sys.executable, __file__, "--embed", str(dataset), str(store), "--quiet", *more]


def peak_bytes(command: list[str]) -> int:
    """Run a command to its end; gives the largest memory it had resident."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def kill_after(command: list[str], done: Callable[[], int], shards: int) -> None:
    """Run a command and kill it as soon as so many shards are done."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while done() < shards and child.poll() is None:
        time.sleep(0.005)
    if child.poll() is not None:
        raise SystemExit(f"{' '.join(command)} ended before it could be killed")
    child.send_signal(signal.SIGKILL)
    child.wait()


# What a kill costs


def records_of(dataset: Path) -> Path:
    return dataset / "curation" / "us-lesion" / "records"


def times(folder: Path, pattern: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def shards_repeated_by_curation(folder: Path, dataset: Path) -> int:
    """Kill a run half-way, run it again, and count the shards that work was done for twice."""
    from napari_medsam_training.corpus.shards import read_lines

    kill_after(curate_command(folder, dataset), lambda: len(times(records_of(dataset), "*.jsonl")), 4)
    done = times(records_of(dataset), "*.jsonl")
    written = {path.stem for path in dataset.glob("*.npz")}
    peak_bytes(curate_command(folder, dataset))
    again = sum(times(records_of(dataset), name)[name] != when for name, when in done.items())
    begun = 0
    for record in records_of(dataset).glob("*.jsonl"):
        if record.name not in done:
            begun += any(row.get("stem") in written for row in read_lines(record))
    return again + begun


def shards_repeated_by_embedding(dataset: Path, store: Path) -> int:
    shards = store / "shards"
    kill_after(embed_command(dataset, store), lambda: len(times(shards, "*.zarr")), 4)
    done, begun = times(shards, "*.zarr"), len(list(shards.glob(".*")))
    peak_bytes(embed_command(dataset, store))
    return begun + sum(times(shards, name)[name] != when for name, when in done.items())


# Workers


def digest(folder: Path) -> str:
    """One hash over all files of a folder but locks: names and bytes."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".lock":
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class Timed:
    """Seconds of curation and of embedding, and what came out."""

    curate: float
    embed: float
    cases: str
    shards: str


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A Dask cluster on this machine, its workers warm: they have imported what they need."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as local,
        Client(local) as client,
    ):
        client.run(_warm)
        yield local.scheduler_address


def _warm() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import tiny_encoder
    import zarr

    from napari_medsam_training.corpus import curate_shard, embed_shard

    for module in (curate_shard, embed_shard, tiny_encoder, zarr):
        assert module.__file__


def with_workers(folder: Path, work: Path, workers: int) -> Timed:
    dataset, store = work / "dataset", work / "store"
    with cluster(workers) as address:
        start = time.perf_counter()
        peak_bytes(curate_command(folder, dataset, "--scheduler", address))
        curated = time.perf_counter()
        peak_bytes(embed_command(dataset, store, "--scheduler", address))
        embedded = time.perf_counter()
    result = Timed(curated - start, embedded - curated, digest(dataset), digest(store))
    shutil.rmtree(work)
    return result


def count(dataset: Path) -> int:
    with (dataset / "curation" / "cases.csv").open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


# The run


def memory(work: Path, sizes: tuple[int, int]) -> list[Figure]:
    peaks: dict[str, list[int]] = {"curation": [], "embedding": []}
    figures = []
    for size in sizes:
        folder, dataset, store = (work / f"{name}-{size}" for name in ("pairs", "dataset", "store"))
        make_pairs(folder, size)
        peaks["curation"].append(peak_bytes(curate_command(folder, dataset)))
        assert count(dataset) == size
        peaks["embedding"].append(peak_bytes(embed_command(dataset, store)))
        shutil.rmtree(store)
    for what, (few, many) in peaks.items():
        figures += [
            Figure(f"{what}, {sizes[0]} cases: peak memory", few / MIB, "MiB"),
            Figure(f"{what}, {sizes[1]} cases: peak memory", many / MIB, "MiB"),
            Figure(f"{what}: {sizes[1]} against {sizes[0]} cases, peak memory", many / few, "x", 1.2),
        ]
    return figures


def kills(work: Path, size: int) -> list[Figure]:
    folder, dataset = work / "pairs-to-kill", work / "killed"
    make_pairs(folder, size)
    return [
        Figure(
            "shards that curation repeats after kill -9", shards_repeated_by_curation(folder, dataset), "", 1
        ),
        Figure(
            "shards that embedding repeats after kill -9",
            shards_repeated_by_embedding(dataset, work / "killed-store"),
            "",
            1,
        ),
    ]


def workers(work: Path, size: int) -> list[Figure]:
    folder = work / "timed"
    make_pairs(folder, size)
    one, two = (with_workers(folder, work / f"by-{number}", number) for number in (1, 2))
    same = one.cases == two.cases and one.shards == two.shards
    total = (one.curate + one.embed) / (two.curate + two.embed)
    return [
        Figure(f"1 worker, {size} cases: curation", one.curate, "s"),
        Figure(f"1 worker, {size} cases: embedding", one.embed, "s"),
        Figure("2 workers: files that differ from one worker's (0 none, 1 some)", 0 if same else 1, "", 0),
        Figure("2 workers: curation, times as fast", one.curate / two.curate, "x"),
        Figure("2 workers: embedding, times as fast", one.embed / two.embed, "x"),
        Figure("2 workers: both, times as fast as one", total, "x", 1.6, at_least=True),
    ]


def main() -> int:
    if sys.argv[1:2] == ["--embed"]:
        from tiny_encoder import TinyChoice

        from napari_medsam_training import embed

        return embed.main(sys.argv[2:], TinyChoice())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", type=int, default=2000)
    parser.add_argument("--many", type=int, default=20000)
    parser.add_argument("--timed", type=int, default=1000, help="cases for the comparison of workers")
    parser.add_argument(
        "--only", nargs="+", choices=["memory", "kills", "workers"], help="parts; all if not given"
    )
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        work = Path(place)
        parts = {
            "memory": lambda: memory(work, (args.few, args.many)),
            "kills": lambda: kills(work, args.few),
            "workers": lambda: workers(work, args.timed),
        }
        return max(
            publish(
                f"scale_{name}", f"Scale: {TITLES[name]}", parts[name](), NOTE if name == "workers" else ""
            )
            for name in args.only or parts
        )


if __name__ == "__main__":
    sys.exit(main())
