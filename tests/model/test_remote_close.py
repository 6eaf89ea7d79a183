"""The model's process goes when it is told to, with all it started, and reports to nobody."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from napari_medsam import process
from napari_medsam.errors import ModelError
from napari_medsam.model import remote

posix = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked on POSIX only")

# A server that has forked: the fork keeps the streams and does not end by itself.
FORKED = """
import os, sys, time
if os.fork() == 0:
    time.sleep(600)
sys.stdout.buffer.write({ready})
sys.stdout.buffer.flush()
{then}
"""


def start(monkeypatch: pytest.MonkeyPatch, script: str) -> tuple[remote.ModelProcess, threading.Event]:
    """A `ModelProcess` that runs a script instead of the server; the event is set by its first notice."""
    import pickle

    text = script.format(ready=pickle.dumps((0, "notice", "ready")), then="{then}")
    real = subprocess.Popen
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", text], **options)
    )
    ready = threading.Event()
    return remote.ModelProcess(on_notice=lambda _: ready.set()), ready


@posix
def test_closing_ends_what_it_started_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ready = start(monkeypatch, FORKED.replace("{then}", "time.sleep(600)"))
    assert ready.wait(20)
    waiting = model.send("encode")
    model.close()
    assert isinstance(waiting.exception(5), ModelError)
    assert not model.alive
    model.close()


@posix
def test_closing_does_not_wait_for_a_stream_that_somebody_else_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The fork leaves the group, as a daemon does.
    note = tmp_path / "pid"
    leave = f"os.setsid(); open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    script = FORKED.replace("{then}", "time.sleep(600)").replace("    time.sleep(600)", f"    {leave}", 1)
    model, ready = start(monkeypatch, script)
    monkeypatch.setattr(process, "SHUTDOWN_S", 0.2)
    assert ready.wait(20)
    deadline = time.monotonic() + 20
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)  # the fork has not left the group yet
    closing = threading.Thread(target=model.close)
    closing.start()
    closing.join(10)
    try:
        assert not closing.is_alive()
        assert not model.alive
    finally:
        _end(note)
        monkeypatch.setattr(process, "SHUTDOWN_S", 10.0)
        model.close()


def _end(note: Path) -> None:
    import os
    import signal
    import time

    deadline = time.monotonic() + 10
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(int(note.read_text()), signal.SIGKILL)


def test_openvino_reports_to_nobody() -> None:
    pytest.importorskip("openvino_telemetry")
    script = """
import multiprocessing, sys
def refuse(*_):
    raise SystemExit("a process was started")
multiprocessing.Process.start = refuse
from napari_medsam.model.runtime.openvino_encoder import import_openvino
print(import_openvino().get_version())
assert sys.modules["openvino_telemetry"] is None
"""
    done: Any = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
