"""A verdict on a decoder, as its file keeps it: the decision and the figures it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scores:
    """DSC and NSD, of one object or the means over several."""

    dsc: float
    nsd: float


@dataclass(frozen=True)
class Difference:
    """Mean difference of the DSC, new minus current, and its interval; over: what was drawn for that."""

    dsc: float
    low: float
    high: float
    level: float
    over: str


@dataclass(frozen=True)
class ClassScores:
    """Means over the held-out objects of a class; released: of the model's own decoder."""

    class_: str
    objects: int
    new: Scores | None = None
    current: Scores | None = None
    released: Scores | None = None


@dataclass(frozen=True)
class CaseScores:
    """Means over the objects of a held-out case."""

    case: str
    objects: int
    new: Scores | None = None
    current: Scores | None = None
    released: Scores | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a new decoder is better than the one in use.

    new, current, released: what each is called. by: how the cases were divided. tolerance: of the NSD. decision:
    "adopt", "keep" or "unsure". mean: by role. table: the cases, the worst first. pictures: file names in the run's
    folder.
    """

    new: str = ""
    current: str = ""
    released: str = ""
    by: str = ""
    objects: int = 0
    cases: int = 0
    tolerance: float = 0.0
    difference: Difference | None = None
    decision: str = ""
    reason: str = ""
    mean: Mapping[str, Scores] = field(default_factory=dict)
    classes: tuple[ClassScores, ...] = ()
    table: tuple[CaseScores, ...] = ()
    pictures: tuple[str, ...] = ()
