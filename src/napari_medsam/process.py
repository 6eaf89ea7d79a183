"""A module of this package at work in a process of its own: the parent's end, and what the child does first.

The two talk through the child's standard streams. When the parent ends, however it does, the child's input closes,
and the child has to end then: so nothing is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread, current_thread
from typing import IO, BinaryIO

SHUTDOWN_S = 5.0
_TAIL_BYTES = 4096
_TAIL_LENGTH = 300


class ChildProcess:
    """Runs ``python -m module arguments``; `listen` comes next.

    What the child prints to its error stream goes to the file `log`, without one to a temporary file; see
    `last_words`. Raises OSError when the log cannot be written or the process not be started.
    """

    def __init__(self, module: str, *arguments: str, log: Path | None = None) -> None:
        # Open as long as the process is: it is closed with the streams.
        self._log = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Threads that spin while they wait take the core from the window and from each other.
            env={"OMP_WAIT_POLICY": "passive", **os.environ},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            start_new_session=True,  # so that what it starts itself can be ended with it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.requests, self._answers = self._process.stdin, self._process.stdout
        self._reader: Thread | None = None

    def listen(self, name: str, read: Callable[[IO[bytes]], None]) -> None:
        """Let read(answers) take what the child writes, in a thread of this name, until the stream ends."""
        self._reader = Thread(target=read, args=(self._answers,), name=name, daemon=True)
        self._reader.start()

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until the process has ended and all it said was read; gives its status."""
        status = self._process.wait()
        self._reader_ended()
        return status

    def close(self) -> None:
        """End the process and all it has started, whatever it is doing, and the thread that listens to it."""
        if self.status is None:
            _kill(self._process.pid)
        self._process.wait(SHUTDOWN_S)
        if not self._reader_ended():
            return  # something else holds the streams open: closing them would wait for it
        for stream in (self.requests, self._answers, self._log):
            with suppress(OSError):  # a request was half written when the process ended
                stream.close()

    def last_words(self) -> str:
        """The last line that the process, which has ended, wrote to its error stream; "" for none."""
        with suppress(OSError, ValueError):  # closed meanwhile
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(size - _TAIL_BYTES, 0))
            lines = self._log.read().decode(errors="replace").split("\n")
            return next((line.strip()[-_TAIL_LENGTH:] for line in reversed(lines) if line.strip()), "")
        return ""

    def _reader_ended(self) -> bool:
        if (
            self._reader is None or current_thread() is self._reader
        ):  # the listener itself asks, and reads no more
            return True
        self._reader.join(SHUTDOWN_S)
        return not self._reader.is_alive()


def _kill(pid: int) -> None:
    if sys.platform == "win32":
        import psutil

        with suppress(psutil.Error):
            process = psutil.Process(pid)
            for each in (*process.children(recursive=True), process):
                each.kill()
    else:  # the whole group: also what has lost its parent
        with suppress(ProcessLookupError, PermissionError):  # macOS says so of one that has ended
            os.killpg(pid, signal.SIGKILL)


def answers_to_parent() -> BinaryIO:
    """In the child: the stream to its parent. What is printed from now on goes to the error stream instead."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not spoil the stream
    return answers


def step_back(niceness: int) -> None:
    """In the child: let the window and its prompts go first, on every system."""
    import psutil

    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(min(process.nice() + niceness, 19))
