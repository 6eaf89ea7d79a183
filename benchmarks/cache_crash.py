"""Part of benchmarks/cache.py: processes that embed with the real model, killed or two at a time on one store.

python benchmarks/cache_crash.py STORE FIELDS    (one such process)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lib.record import Figure

from napari_medsam.embedding.cache import EmbeddingCache, embedding_key
from napari_medsam.embedding.embed import FieldRequest
from napari_medsam.embedding.scheduler import EmbeddingScheduler
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field
from napari_medsam.image.plane import Plane

KILLS = 3


class Counted:
    """The real model; says on the output when its encoder is called."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, prepared: np.ndarray) -> Any:
        say("begun", embedding_key(prepared, self.encoder_hash, self.precision))
        return self._model.encode(prepared)


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


def child(store: Path, fields: int) -> None:
    """Embed `fields` fields of one synthetic plane in the background, telling each one begun and kept."""
    from napari_medsam.model.local import build_model

    pixels = np.random.default_rng(0).integers(0, 256, (64, 16 * fields + 64), dtype=np.uint8)
    plane = Plane.from_array(pixels)
    with EmbeddingScheduler(lambda: Counted(build_model("lite-medsam")), EmbeddingCache(store)) as scheduler:
        requests = [FieldRequest(plane, Contrast(), Field(0, 16 * i, 64, 64, "grid")) for i in range(fields)]
        for future in [scheduler.submit(request) for request in requests]:
            future.add_done_callback(
                lambda done: None if done.cancelled() else say("kept", done.result().key)
            )
        scheduler.submit(requests[-1]).result()


def start_child(store: Path, fields: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(store), str(fields)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    assert process.stdout is not None
    for line in process.stdout:
        word, key = line.split()
        yield word, key


def kill_and_resume(store: Path, fields: int) -> list[Figure]:
    """Kill the embedding of `fields` fields three times at random moments, let the fourth run end, and count."""
    rng = np.random.default_rng(0)
    begun: Counter[str] = Counter()
    kept: set[str] = set()
    again = 0
    for run in range(KILLS + 1):
        process = start_child(store, fields)
        left = int(rng.integers(1, max(2, fields // (KILLS + 1)))) if run < KILLS else -1
        for word, key in lines(process):
            again += word == "begun" and key in kept
            begun[key] += word == "begun"
            kept |= {key} if word == "kept" else set()
            left -= word == "begun"
            if left == 0:
                time.sleep(float(rng.uniform(0, 0.5)))
                process.send_signal(signal.SIGKILL)
        if process.wait() != (-signal.SIGKILL if run < KILLS else 0):
            raise SystemExit(f"Run {run} ended with status {process.returncode}.")
    cache = EmbeddingCache(store)
    cache.prune()
    lost = fields - sum(cache.get(key) is not None for key in begun)
    foreign = sum(path.is_file() for path in store.rglob("*")) - cache.stats().entries
    what = f"{fields} fields, killed {KILLS} times and resumed"
    return [
        Figure(f"{what}: calls of the encoder", begun.total(), "", fields + KILLS),
        Figure(f"{what}: finished fields encoded again", again, "", 0),
        Figure(f"{what}: fields missing at the end", lost, "", 0),
        Figure(f"{what}: files left that are no entry", foreign, "", 0),
    ]


def two_processes(store: Path, fields: int) -> list[Figure]:
    """Two processes embed the same fields into one store at once."""
    begun: Counter[str] = Counter()
    processes = [start_child(store, fields) for _ in range(2)]
    for process in processes:
        begun.update(key for word, key in lines(process) if word == "begun")
    failed = sum(process.wait() != 0 for process in processes)
    cache = EmbeddingCache(store)
    what = f"{fields} fields, two processes at once"
    return [
        Figure(f"{what}: most encodes of one field", max(begun.values()), "", 2),
        Figure(f"{what}: processes that failed", failed, "", 0),
        Figure(f"{what}: fields missing", fields - sum(cache.get(key) is not None for key in begun), "", 0),
    ]


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
