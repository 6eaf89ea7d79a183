"""A training run as it was recorded: its events, and a process that plays them when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from napari_medsam.evaluate.verdict import CaseScores, ClassScores, Difference, Scores, Verdict
from napari_medsam.finetune.events import DatasetRead, Done, Embedded, Event, Failed, Stopped, Trained
from napari_medsam.finetune.request import TrainingRequest, write_request
from napari_medsam.model.decoder_file import HEADER, VERSION, DecoderInfo
from napari_medsam.model.library import decoder_path
from napari_medsam.records import plain

DATASET = DatasetRead(
    9, 31, {"train": ("a", "b", "c", "d", "e"), "val": ("f",), "test": ("g", "h", "i")}, "group", "cpu"
)


def embedding(done: int, of: int = 12) -> Embedded:
    return Embedded(done, of, made=done, left=3.0 * (of - done))


def training(epoch: int, loss: float, validation: float | None, *, ended: bool = True) -> Trained:
    samples = 20 if ended else 8
    return Trained(epoch, 4, samples, 20, loss, validation, epoch, 2.0 * epoch, 200.0, ended)


def scores(new: float, current: float) -> dict[str, Scores]:
    means = {"new": new, "current": current, "released": 0.5}
    return {role: Scores(dsc, dsc + 0.05) for role, dsc in means.items()}


def verdict(decision: str, name: str = "mine", current: str = "lite-medsam") -> Verdict:
    return Verdict(
        name, current, "lite-medsam", "group", 14, 3, 2.0, Difference(0.1, 0.04, 0.15, 0.95, "groups"), decision,
        "Because of the figures.", scores(0.9, 0.8), (ClassScores("cell", 14, **scores(0.9, 0.8)),),
        (CaseScores("worst", 4, **scores(0.7, 0.75)), CaseScores("g", 10, **scores(0.95, 0.8))),
        ("worst_1.png", "../../worst_2.png"),
    )  # fmt: skip


def done(decision: str, name: str = "mine") -> Done:
    return Done(decoder_path(name), name, decision == "adopt", verdict(decision, name))


def write_fake_decoder(name: str, **more: Any) -> Path:
    """A decoder file without torch; its weights are no decoder's."""
    path = decoder_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    info = DecoderInfo(name, "lite-medsam", "e" * 64, "d" * 64, "2026-01-01", **more)
    header = json.dumps({"version": VERSION, **plain(info)})
    save_file({"mask_decoder.x": np.zeros(1, np.float32)}, path, metadata={HEADER: header})
    return path


class FakeProcess:
    """What `TrainingProcess` offers. `say` plays events from a thread of its own, as the real reader does."""

    def __init__(self, request: TrainingRequest, folder: Path, on_event: Callable[[Event], None]) -> None:
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
        if isinstance(events[-1], Done | Stopped | Failed):
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
