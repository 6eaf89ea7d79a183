"""A training run as it was recorded: its events, and a process that plays them when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from napari_medsam.finetune.request import TrainingRequest, write_request
from napari_medsam.model.decoder_file import HEADER, VERSION, DecoderInfo
from napari_medsam.model.library import decoder_path

Event = dict[str, Any]

DATASET: Event = {
    "kind": "dataset", "cases": 9, "objects": 31, "by": "group", "device": "cpu",
    "split": {"train": ["a", "b", "c", "d", "e"], "val": ["f"], "test": ["g", "h", "i"]},
}  # fmt: skip


def embedding(done: int, of: int = 12) -> Event:
    return {"kind": "embedding", "done": done, "of": of, "made": done, "left": 3.0 * (of - done)}


def training(epoch: int, loss: float, validation: float | None, *, ended: bool = True) -> Event:
    return {
        "kind": "training", "epoch": epoch, "epochs": 4, "samples": 20 if ended else 8, "of": 20, "loss": loss,
        "validation": validation, "best": epoch, "seconds": 2.0 * epoch, "left": 200.0, "ended": ended,
    }  # fmt: skip


def scores(new: float, current: float) -> dict[str, dict[str, float]]:
    return {
        "new": {"dsc": new, "nsd": new + 0.05},
        "current": {"dsc": current, "nsd": current + 0.05},
        "released": {"dsc": 0.5, "nsd": 0.55},
    }


def verdict(decision: str, name: str = "mine", current: str = "lite-medsam") -> dict[str, Any]:
    return {
        "decision": decision, "reason": "Because of the figures.", "new": name, "current": current,
        "released": "lite-medsam", "objects": 14, "cases": 3, "by": "group", "mean": scores(0.9, 0.8),
        "difference": {"dsc": 0.1, "low": 0.04, "high": 0.15, "level": 0.95, "over": "groups"},
        "classes": [{"class": "cell", "objects": 14, **scores(0.9, 0.8)}],
        "table": [
            {"case": "worst", "objects": 4, **scores(0.7, 0.75)}, {"case": "g", "objects": 10, **scores(0.95, 0.8)},
        ],
        "pictures": ["worst_1.png", "../../worst_2.png"],
    }  # fmt: skip


def done(decision: str, name: str = "mine") -> Event:
    return {
        "kind": "done", "decoder": str(decoder_path(name)), "name": name, "adopted": decision == "adopt",
        "verdict": verdict(decision, name),
    }  # fmt: skip


def write_fake_decoder(name: str, **more: Any) -> Path:
    """A decoder file without torch; its weights are no decoder's."""
    path = decoder_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    info = DecoderInfo(name, "lite-medsam", "e" * 64, "d" * 64, "2026-01-01", **more)
    header = json.dumps({"version": VERSION, **asdict(info)})
    save_file({"mask_decoder.x": np.zeros(1, np.float32)}, path, metadata={HEADER: header})
    return path


class FakeProcess:
    """What `TrainingProcess` offers. `say` plays events from a thread of its own, as the real reader does."""

    def __init__(
        self, request: TrainingRequest, folder: Path, on_event: Callable[[Mapping[str, Any]], None]
    ) -> None:
        write_request(folder, request)
        self.request, self.folder, self._on_event = request, folder, on_event
        self.alive, self.stopped, self.closed = True, False, False

    def say(self, *events: Event) -> None:
        def play() -> None:
            for event in events:
                self._on_event(event)

        thread = threading.Thread(target=play)
        thread.start()
        thread.join()
        if events[-1]["kind"] in ("done", "stopped", "failed"):
            (self.folder / "ended.json").write_text("{}")
            self.alive = False

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed, self.alive = True, False


class Trainer:
    """Starts fake processes and keeps them."""

    def __init__(self) -> None:
        self.runs: list[FakeProcess] = []

    def __call__(self, request: TrainingRequest, folder: Path, on_event: Any) -> FakeProcess:
        self.runs.append(FakeProcess(request, folder, on_event))
        return self.runs[-1]

    @property
    def last(self) -> FakeProcess:
        return self.runs[-1]
