"""What a training run tells while it goes on: one JSON object a line from its process, a dataclass everywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.records import from_json, plain


@dataclass(frozen=True)
class DatasetRead:
    """The cases are read and divided by `by`. split: stems by role."""

    kind: ClassVar = "dataset"
    cases: int
    objects: int
    split: Mapping[str, tuple[str, ...]]
    by: str
    device: str


@dataclass(frozen=True)
class Embedded:
    """Fields that have an embedding; made: those that were not in the cache. left: seconds, None while nobody knows."""

    kind: ClassVar = "embedding"
    done: int
    of: int
    made: int
    left: float | None


@dataclass(frozen=True)
class Trained:
    """Where the fit is. epoch counts from 1; loss: the mean so far in it; validation: DSC after it, None where it has
    not ended or no case validates. best: the epoch whose decoder is kept. ended: whether the epoch is complete."""

    kind: ClassVar = "training"
    epoch: int
    epochs: int
    samples: int
    of: int
    loss: float
    validation: float | None
    best: int
    seconds: float
    left: float | None
    ended: bool


@dataclass(frozen=True)
class JudgedSoFar:
    """Held-out objects that are judged."""

    kind: ClassVar = "judging"
    done: int
    of: int
    left: float | None


@dataclass(frozen=True)
class Done:
    """The run has ended with a judged decoder in the file `decoder`."""

    kind: ClassVar = "done"
    decoder: Path
    name: str
    adopted: bool
    verdict: Verdict


@dataclass(frozen=True)
class Stopped:
    """The run was stopped; decoder: the best so far, not judged, None before there was one."""

    kind: ClassVar = "stopped"
    decoder: Path | None
    name: str
    message: str


@dataclass(frozen=True)
class Failed:
    """The run could not go on."""

    kind: ClassVar = "failed"
    message: str


Event = DatasetRead | Embedded | Trained | JudgedSoFar | Done | Stopped | Failed
_KINDS: Mapping[str, type[Event]] = {type_.kind: type_ for type_ in get_args(Event)}


@dataclass(frozen=True)
class _Kind:
    kind: str


def to_line(event: Event) -> str:
    """An event as one line of JSON, without its end."""
    return json.dumps({"kind": event.kind, **plain(event)})


def from_line(line: str | bytes) -> Event | None:
    """What a line says; None for an event of a kind nobody knows. Raises ValueError for a line cut short or wrong."""
    type_ = _KINDS.get(from_json(_Kind, line).kind)
    return None if type_ is None else from_json(type_, line)
