"""Paired timing: rivals take turns in one run, and ratios are taken turn by turn, so that a busy machine is fair."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def take_turns(
    rivals: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of every call, by rival; each round calls every rival once. `warm` rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(warm + rounds):
        for name, call in rivals.items():
            start = time.perf_counter()
            call()
            if turn >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: Mapping[str, list[float]], name: str, baseline: str) -> float:
    """Median over the rounds of one rival's time divided by the baseline's in the same round."""
    return median(a / b for a, b in zip(times[name], times[baseline], strict=True))
