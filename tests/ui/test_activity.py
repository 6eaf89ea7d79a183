"""When napari's activity dock has an entry, and that every entry is closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ui_desk import Desk

from napari_medsam.embedding.scheduler import IDLE, Progress
from napari_medsam.ui.qt import activity as activity_module
from napari_medsam.ui.qt.activity import LONG_S, Activity, Pace

FIELDS = 1000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bar:
    """napari's progress bar: Qt handles events while it updates, so that `meanwhile` comes in between."""

    made: list[Bar]
    meanwhile: Any = None

    def __init__(self, **_: Any) -> None:
        self.total, self.n, self.closed = 1, 0, False
        type(self).made.append(self)
        self._let_in()

    def set_description(self, text: str) -> None:
        assert not self.closed
        self.text = text
        self._let_in()

    def update(self, steps: int) -> None:
        assert not self.closed
        self.n += steps
        self._let_in()

    def close(self) -> None:
        self.closed = True

    def _let_in(self) -> None:
        if Bar.meanwhile is not None:
            Bar.meanwhile()


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    Bar.made, Bar.meanwhile = [], None
    monkeypatch.setattr(activity_module, "progress", Bar)
    return Bar.made


@pytest.fixture
def clock() -> Clock:
    return Clock()


def embed(activity: Activity, clock: Clock, done: int, seconds: float, total: int = FIELDS) -> None:
    """Tell of so many fields, each after so many seconds."""
    for number in range(done + 1):
        activity.show(Progress(number, total, "cells", "embedding"))
        clock.now += seconds


class TestWhen:
    def test_a_short_job_has_none(self, bars: list[Bar], clock: Clock) -> None:
        embed(Activity(Pace(clock)), clock, 20, LONG_S / 21, total=20)
        assert bars == []

    def test_a_long_one_has_one_to_its_end(self, bars: list[Bar], clock: Clock) -> None:
        activity = Activity(Pace(clock))
        activity.show(Progress(0, FIELDS, "cells", "loading"))
        embed(activity, clock, FIELDS, 1.0)
        [bar] = bars
        assert (bar.n, bar.total, bar.text, bar.closed) == (FIELDS, FIELDS, "Embedding cells", False)
        activity.show(IDLE)
        assert bar.closed

    def test_none_while_it_is_seen_elsewhere(self, bars: list[Bar], clock: Clock) -> None:
        activity = Activity(Pace(clock))
        seen = [True]
        activity.seen_elsewhere = lambda: seen[0]
        embed(activity, clock, 10, 1.0)
        assert bars == []
        seen[0] = False
        activity.show(Progress(11, FIELDS, "cells", "embedding"))
        assert len(bars) == 1
        seen[0] = True
        activity.show(Progress(12, FIELDS, "cells", "embedding"))
        assert bars[0].closed

    def test_a_download_has_one(self, bars: list[Bar]) -> None:
        activity = Activity()
        activity.seen_elsewhere = lambda: True
        for done in (0, 50, 100):
            activity.download(done, 100)
        assert [(bar.text, bar.closed) for bar in bars] == [("Fetching the model", True)]


class TestBetween:
    """What comes while a bar updates must not get lost."""

    def test_every_bar_is_closed(self, bars: list[Bar], clock: Clock) -> None:
        activity = Activity(Pace(clock))
        Bar.meanwhile = lambda: activity.show(IDLE)
        for _ in range(2):
            embed(activity, clock, 2, 1.0)
        assert len(bars) == 2
        assert all(bar.closed for bar in bars)

    def test_the_last_word_counts(self, bars: list[Bar], clock: Clock) -> None:
        activity = Activity(Pace(clock))
        Bar.meanwhile = lambda: activity.show(Progress(7, FIELDS, "late", "embedding"))
        embed(activity, clock, 2, 1.0)
        assert [(bar.n, bar.text) for bar in bars] == [(7, "Embedding late")]


def test_the_docks_bar_serves_while_it_is_on_screen(
    mouse_desk: Desk, bars: list[Bar], clock: Clock, image: np.ndarray
) -> None:
    desk = mouse_desk
    desk.open(image)
    desk.settle()
    desk.controller.activity._pace = Pace(clock)

    def tell(first: int) -> None:
        for number in range(first, first + 3):
            desk.controller._on_progress(Progress(number, FIELDS, "cells", "embedding"))
            clock.now += 1.0

    tell(0)
    assert desk.dock.progress.bar.isVisible()
    assert bars == []
    desk.dock.parentWidget().hide()
    tell(3)
    assert [bar.closed for bar in bars] == [False]
    desk.controller._on_progress(IDLE)
    assert bars[0].closed
