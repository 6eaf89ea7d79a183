"""The training run of a window: its process, its state, and few enough updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_medsam.finetune.events import Event
from napari_medsam.finetune.request import TrainingRequest, request_of
from napari_medsam.finetune.run import TrainingProcess, new_run_folder, unfinished_runs
from napari_medsam.finetune.run_state import RunState, follow
from napari_medsam.ui.qt.bridge import MainThread, single_shot

Begin = Callable[[TrainingRequest, Path, Callable[[Event], None]], Any]

UPDATE_MS = 250  # events come with every step; a person reads four lines a second at most
REAP_MS = 200
REAP_TURNS = 50  # then a process that does not end after its last event is killed


class TrainingRun(QObject):  # type: ignore[misc]
    """At most one run at a time. ``begin`` starts its process (a test's fake, or `TrainingProcess`).

    Signals, in the main thread: ``changed(RunState)`` a few times a second, ``ended(TrainingRequest, RunState)`` once
    a run. A run goes on while the panel that shows it is closed, and ends with `close`; then it can be resumed.
    """

    changed = Signal(object)
    ended = Signal(object, object)

    def __init__(self, begin: Begin = TrainingProcess) -> None:
        super().__init__()
        self._begin = begin
        self._main = MainThread(self)
        self._view = RunState()
        self._run = 0
        self._process: Any = None
        self._ended_process: Any = None  # puts its files away
        self._turns = 0
        self.request: TrainingRequest | None = None
        self.folder: Path | None = None
        self._update_timer, self._reap_timer = single_shot(self, self._update), QTimer(self)
        self._reap_timer.timeout.connect(self._reap)

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def view(self) -> RunState:
        """What is known of the run that goes on, or of the last one."""
        return self._view

    def start(self, request: TrainingRequest, folder: Path | None = None) -> None:
        """Start a run; with the folder of an unfinished one, go on with that. Raises CaseError: nothing to write to."""
        assert not self.running
        folder = folder or new_run_folder()
        self._run += 1
        self._view, self.request, self.folder = RunState(request.name), request, folder
        self._process = self._begin(request, folder, partial(self._on_event, self._run))
        self.changed.emit(self._view)

    def resume(self, folder: Path) -> None:
        """Go on with a run that was killed. Raises CaseError when its request cannot be read."""
        self.start(request_of(folder), folder)

    def unfinished(self) -> list[Path]:
        """Folders of runs that were killed half-way, the newest first; not the one that goes on now."""
        now = self.folder if self.running else None
        return [folder for folder in unfinished_runs() if folder != now]

    def stop(self) -> None:
        """Ask the run to end; the best decoder so far is kept."""
        if self.running:
            self._process.stop()
            self._view = replace(self._view, stopping=True)
            self.changed.emit(self._view)

    def close(self) -> None:
        """End the run at once; it can be resumed. Nothing is emitted afterwards."""
        self._run += 1
        self._update_timer.stop()
        self._close_ended()
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _on_event(self, run: int, event: Event) -> None:
        """Called by the process's reader thread."""
        self._main.post(partial(self._add, run, event))

    def _add(self, run: int, event: Event) -> None:
        if run != self._run:
            return
        self._view = follow(self._view, event)
        if self._view.ended or not self._update_timer.isActive():
            self._update_timer.start(0 if self._view.ended else UPDATE_MS)

    def _update(self) -> None:
        ended = self._view.ended and self._process is not None
        if ended:
            self._close_ended()
            self._ended_process, self._process, self._turns = self._process, None, REAP_TURNS
            self._reap_timer.start(REAP_MS)
        self.changed.emit(self._view)
        if ended:
            self.ended.emit(self.request, self._view)

    def _reap(self) -> None:
        """Let a process that sent its last event put its files away, then close it."""
        self._turns -= 1
        if self._turns < 0 or not self._ended_process.alive:
            self._close_ended()

    def _close_ended(self) -> None:
        self._reap_timer.stop()
        process, self._ended_process = self._ended_process, None
        if process is not None:
            process.close()
