"""napari's activity dock: an entry for what takes long and can be seen nowhere else.

While an entry is open a spinner turns in napari's status bar, and each of its pictures has the whole window composed
anew: some 30 ms where no graphics card draws it (`benchmarks/event_loop.py`). So the dock's own bar shows what it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.utils import progress

from napari_medsam.embedding.scheduler import Progress

LONG_S = 10.0
"""Embedding that ends sooner gets no entry."""


class Pace:
    """How long the encoder still needs, by what it has done since it was last idle. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: tuple[float, int] | None = None

    def left(self, now: Progress) -> float | None:
        """Seconds to the end; None before two fields are done. Tell it every progress."""
        if now.state == "idle":
            self._since = None
        if now.state != "embedding":
            return None
        if self._since is None or now.done < self._since[1]:
            self._since = (self._clock(), now.done)
        began, first = self._since
        if now.done - first < 2:
            return None
        return (self._clock() - began) / (now.done - first) * (now.total - now.done)


@dataclass(frozen=True)
class _Entry:
    what: str
    done: int
    total: int


class Activity:
    """The entry of one controller. ``seen_elsewhere()`` says whether the user sees how far embedding is anyway."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.seen_elsewhere: Callable[[], bool] = lambda: False
        self._pace = pace or Pace()
        self._bar: Any = None
        self._wanted: _Entry | None = None
        self._shown: _Entry | None = None
        self._updating = False

    def show(self, now: Progress) -> None:
        """Show how far embedding is, once it turns out to be long; an entry that is open stays to the end."""
        left = self._pace.left(now)
        going = now.state == "embedding" and (self._bar is not None or (left or 0.0) > LONG_S)
        entry = _Entry(f"Embedding {now.current}", now.done, now.total)
        self._show(entry if going and not self.seen_elsewhere() else None)

    def download(self, done: int, total: int) -> None:
        """Show how much of a model is there, in bytes; a total of 0 stands for unknown."""
        self._show(_Entry("Fetching the model", done, total) if done < total or not total else None)

    def close(self) -> None:
        self._show(None)

    def _show(self, entry: _Entry | None) -> None:
        # napari's progress bar lets Qt handle events while it updates, so that the next entry comes in between:
        # it is left for the call that is under way.
        self._wanted = entry
        if self._updating:
            return
        self._updating = True
        try:
            while self._wanted != self._shown:
                self._shown = self._wanted
                self._bring(self._shown)
        finally:
            self._updating = False

    def _bring(self, entry: _Entry | None) -> None:
        if entry is None:
            bar, self._bar = self._bar, None
            if bar is not None:
                bar.close()
            return
        if self._bar is None:
            self._bar = progress(total=entry.total, desc="MedSAM")
        bar = self._bar
        if bar.total != entry.total:
            bar.total = entry.total
        bar.set_description(entry.what)
        bar.update(entry.done - bar.n)
