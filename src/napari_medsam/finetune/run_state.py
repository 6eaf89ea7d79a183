"""A training run as somebody sees it who follows it: its events, one after the other, become a `RunView`.

    training process --events--> follow(view, event) --> RunView --> window, command line

No Qt and no torch; a view is frozen, so one thread may make it and another show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

State = Literal["starting", "embedding", "training", "judging", "done", "stopped", "failed"]
ENDED: tuple[State, ...] = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Point:
    """One whole epoch: its number from 1, its mean loss, and the validation DSC where cases validate."""

    epoch: int
    loss: float
    validation: float | None


@dataclass(frozen=True)
class RunView:
    """What is known of a run.

    done, of: steps of what goes on now, of = 0 while nobody can say. left: seconds until that is done, or None.
    best: the epoch whose decoder is kept, 0 before the first. decoder: the file, once there is one. verdict: see
    `finetune.verdict.verdict_of`, None without one.
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
    curve: tuple[Point, ...] = ()
    decoder: Path | None = None
    adopted: bool = False
    verdict: Mapping[str, Any] | None = None
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
        return _LINES[self.state](self) + time_left(self.left)


def follow(view: RunView, event: Mapping[str, Any]) -> RunView:
    """The view after one more event of `finetune.train.train`; an event nobody knows changes nothing."""
    if view.ended:
        return view
    take = _TAKE.get(str(event.get("kind")))
    return view if take is None else take(view, event)


def time_left(seconds: float | None) -> str:
    """How long something will take, as it follows a sentence; empty where nobody knows."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f", {max(1, round(seconds))} s left"
    return f", {round(seconds / 60)} min left"


def _dataset(view: RunView, event: Mapping[str, Any]) -> RunView:
    split = {role: len(stems) for role, stems in event["split"].items()}
    return replace(
        view,
        cases=event["cases"],
        objects=event["objects"],
        split=split,
        by=event["by"],
        device=event["device"],
    )


def _embedding(view: RunView, event: Mapping[str, Any]) -> RunView:
    return replace(view, state="embedding", done=event["done"], of=event["of"], left=event["left"])


def _training(view: RunView, event: Mapping[str, Any]) -> RunView:
    epoch, curve = event["epoch"], view.curve
    if event["ended"]:
        curve = (*curve, Point(epoch, event["loss"], event["validation"]))
    return replace(
        view,
        state="training",
        done=(epoch - 1) * event["of"] + event["samples"],
        of=event["epochs"] * event["of"],
        left=event["left"],
        epoch=epoch,
        epochs=event["epochs"],
        best=event["best"] or 0,
        curve=curve,
    )


def _judging(view: RunView, event: Mapping[str, Any]) -> RunView:
    return replace(view, state="judging", done=event["done"], of=event["of"], left=event["left"])


def _done(view: RunView, event: Mapping[str, Any]) -> RunView:
    verdict, name = event["verdict"], event["name"]
    word = "adopted" if event["adopted"] else "kept aside"
    return replace(
        view,
        state="done",
        name=name,
        decoder=Path(event["decoder"]),
        adopted=bool(event["adopted"]),
        verdict=verdict,
        message=f"{name} is {word}. {verdict.get('reason', '')}".strip(),
        left=None,
    )


def _stopped(view: RunView, event: Mapping[str, Any]) -> RunView:
    file = event["decoder"]
    return replace(
        view,
        state="stopped",
        name=event["name"],
        decoder=None if file is None else Path(file),
        message=event["message"],
        left=None,
    )


def _failed(view: RunView, event: Mapping[str, Any]) -> RunView:
    return replace(view, state="failed", message=str(event["message"]), left=None)


_TAKE = {
    "dataset": _dataset,
    "embedding": _embedding,
    "training": _training,
    "judging": _judging,
    "done": _done,
    "stopped": _stopped,
    "failed": _failed,
}


def _training_line(view: RunView) -> str:
    best = f", best {view.best}" if view.best else ""
    return f"Training: epoch {view.epoch} of {view.epochs}{best}"


_LINES: Mapping[str, Callable[[RunView], str]] = {
    "starting": lambda view: "Reading the cases ..." if view.device else "Starting, loading the model ...",
    "embedding": lambda view: f"Embedding: {view.done} of {view.of} fields",
    "training": _training_line,
    "judging": lambda view: f"Judging on held-out cases: {view.done} of {view.of} objects",
}
