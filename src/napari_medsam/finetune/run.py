"""A training run in a process of its own: its memory is free when it ends, and the window never waits for it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO

from napari_medsam.finetune.events import Done, Event, Failed, Stopped, from_line
from napari_medsam.finetune.request import REQUEST_NAME, TrainingRequest, is_at_work, write_request
from napari_medsam.folders import runs_folder
from napari_medsam.process import ChildProcess

ENDED_NAME = "ended.json"
LOG_NAME = "log.txt"


def new_run_folder() -> Path:
    """A name for a run's folder that no other has; it is made when the run starts."""
    return runs_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def unfinished_runs() -> list[Path]:
    """Folders of runs that were killed half-way, the newest first; `TrainingProcess` goes on with one.

    Runs that another window is at are left out.
    """
    found = [path.parent for path in runs_folder().glob(f"*/{REQUEST_NAME}")]
    killed = [folder for folder in found if not (folder / ENDED_NAME).exists() and not is_at_work(folder)]
    return sorted(killed, reverse=True)


class TrainingProcess:
    """Starts a training run and hands on what it says.

    on_event receives each event from a reader thread; the last one is `Done`, `Stopped` or `Failed`, always.
    folder: of the run; one that an earlier run of the same request left is gone on with. Raises CaseError when the
    folder cannot be written.
    """

    def __init__(self, request: TrainingRequest, folder: Path, on_event: Callable[[Event], None]) -> None:
        write_request(folder, request)
        (folder / ENDED_NAME).unlink(missing_ok=True)
        self.folder = folder
        self.request = request
        self._on_event = on_event
        self._lock = Lock()
        self._closed = False
        self._child = ChildProcess("napari_medsam.finetune.worker", str(folder), log=folder / LOG_NAME)
        self._child.listen("medsam-training", self._read)

    @property
    def alive(self) -> bool:
        return self._child.status is None

    def stop(self) -> None:
        """Ask the run to end and to keep the best decoder so far; `stopped` follows within two seconds."""
        with self._lock, suppress(OSError, ValueError):
            self._child.requests.write(b"stop\n")
            self._child.requests.flush()

    def close(self) -> None:
        """End the process at once, and the thread that listens to it; the run can be resumed."""
        self._closed = True
        self._child.close()

    def wait(self) -> int:
        """Wait until the run has ended and return the process's status."""
        return self._child.wait()

    def _read(self, events: IO[bytes]) -> None:
        last = False
        for line in events:
            try:
                event = from_line(line)
            except ValueError:  # a line cut short by a kill
                continue
            if event is None:
                continue
            last = isinstance(event, Done | Stopped | Failed)
            if last:
                with suppress(OSError):  # a folder that is gone or full must not keep the news back
                    (self.folder / ENDED_NAME).write_bytes(line)
            self._tell(event)
            if self._closed:  # maybe by the listener itself, and the stream with it
                return
        if not last and not self._closed:
            self._tell(Failed(_failure(self._child.wait(), self.folder, self._child.last_words())))

    def _tell(self, event: Event) -> None:
        if not self._closed:
            self._on_event(event)


def _failure(status: int, folder: Path, printed: str) -> str:
    return (
        f"Training failed: its process ended (status {status}{printed and f', {printed!r}'}); it may have run out of "
        f"memory. All it printed is in {folder / LOG_NAME}. Start it again: it continues from its last complete epoch."
    )
