"""A training run as somebody sees it who follows it: its events, one after the other, become a `RunState`.

    training process --events--> follow(state, event) --> RunState --> window, command line

No Qt and no torch; a state is frozen, so one thread may make it and another show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.finetune.events import (
    DatasetRead,
    Done,
    Embedded,
    Event,
    Failed,
    JudgedSoFar,
    Stopped,
    Trained,
)
from napari_medsam.model.decoder_file import CurvePoint

State = Literal["starting", "embedding", "training", "judging", "done", "stopped", "failed"]
ENDED: tuple[State, ...] = ("done", "stopped", "failed")


@dataclass(frozen=True)
class RunState:
    """What is known of a run.

    done, of: steps of what goes on now, of = 0 while nobody can say. left: seconds until that is done, or None.
    best: the epoch whose decoder is kept, 0 before the first. decoder: the file, once there is one.
    """

    name: str = ""
    state: State = "starting"
    cases: int = 0
    objects: int = 0
    split: Mapping[str, int] | None = None
    by: str = ""
    device: str = ""
    done: int = 0
    of: int = 0
    left: float | None = None
    epoch: int = 0
    epochs: int = 0
    best: int = 0
    curve: tuple[CurvePoint, ...] = ()
    decoder: Path | None = None
    adopted: bool = False
    verdict: Verdict | None = None
    message: str = ""
    stopping: bool = False

    @property
    def ended(self) -> bool:
        """Whether no more is to come."""
        return self.state in ENDED

    @property
    def line(self) -> str:
        """One line about what goes on, or how it ended."""
        if self.ended:
            return self.message
        if self.stopping:
            return "Stopping; the best decoder so far is kept ..."
        return _doing(self) + time_left(self.left)


def follow(state: RunState, event: Event) -> RunState:
    """The state after one more event; nothing changes one that has ended."""
    if state.ended:
        return state
    match event:
        case DatasetRead(cases, objects, split, by, device):
            sides = {role: len(stems) for role, stems in split.items()}
            return replace(state, cases=cases, objects=objects, split=sides, by=by, device=device)
        case Embedded(done, of, _, left):
            return replace(state, state="embedding", done=done, of=of, left=left)
        case Trained():
            return _trained(state, event)
        case JudgedSoFar(done, of, left):
            return replace(state, state="judging", done=done, of=of, left=left)
    return _ended(replace(state, left=None), event)


def time_left(seconds: float | None) -> str:
    """How long something will take, as it follows a sentence; empty where nobody knows."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f", {max(1, round(seconds))} s left"
    return f", {round(seconds / 60)} min left"


def _trained(state: RunState, event: Trained) -> RunState:
    point = (CurvePoint(event.epoch, event.loss, event.validation),) if event.ended else ()
    return replace(
        state,
        state="training",
        done=(event.epoch - 1) * event.of + event.samples,
        of=event.epochs * event.of,
        left=event.left,
        epoch=event.epoch,
        epochs=event.epochs,
        best=event.best,
        curve=state.curve + point,
    )


def _ended(state: RunState, event: Done | Stopped | Failed) -> RunState:
    if isinstance(event, Failed):
        return replace(state, state="failed", message=event.message)
    state = replace(state, name=event.name, decoder=event.decoder)
    if isinstance(event, Stopped):
        return replace(state, state="stopped", message=event.message)
    message = (
        f"{event.name} is {'adopted' if event.adopted else 'kept aside'}. {event.verdict.reason}".strip()
    )
    return replace(state, state="done", adopted=event.adopted, verdict=event.verdict, message=message)


def _doing(state: RunState) -> str:
    if state.state == "embedding":
        return f"Embedding: {state.done} of {state.of} fields"
    if state.state == "training":
        best = f", best {state.best}" if state.best else ""
        return f"Training: epoch {state.epoch} of {state.epochs}{best}"
    if state.state == "judging":
        return f"Judging on held-out cases: {state.done} of {state.of} objects"
    return "Reading the cases ..." if state.device else "Starting, loading the model ..."
