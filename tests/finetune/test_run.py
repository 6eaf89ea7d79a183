"""Training in a process of its own: what it tells, how it ends, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from finetune_fakes import write_discs

from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.events import Event as TypedEvent
from napari_medsam.finetune.events import to_line
from napari_medsam.finetune.request import TrainingRequest, is_at_work, request_of, write_request
from napari_medsam.finetune.run import (
    ENDED_NAME,
    TrainingProcess,
    new_run_folder,
    unfinished_runs,
)
from napari_medsam.finetune.train import train
from napari_medsam.folders import decoders_folder, runs_folder
from napari_medsam.model.decoder_file import read_info

Event = dict[str, Any]
PATIENCE_S = 120.0
CONFIG = FinetuneConfig(epochs=4, batch=1, shares=(1.0,))
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")


class Listener:
    """Collects events, from whatever thread; waits for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()

    def __call__(self, event: TypedEvent) -> None:
        with self._news:
            self.events.append(json.loads(to_line(event)))
            self._news.notify_all()

    def wait_for(self, wanted: Callable[[Event], bool]) -> Event:
        with self._news:
            assert self._news.wait_for(lambda: any(map(wanted, self.events)), PATIENCE_S), self.events[-3:]
            return next(event for event in self.events if wanted(event))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in groupby(event["kind"] for event in self.events)]


def ended_epoch(number: int) -> Callable[[Event], bool]:
    return lambda event: event["kind"] == "training" and event["ended"] and event["epoch"] == number


def ended(event: Event) -> bool:
    return event["kind"] in ("done", "stopped", "failed")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases and their embeddings, which the first run makes and the others find."""
    folder = tmp_path_factory.mktemp("shared")
    write_discs(folder / "cases", range(3))
    return folder


@pytest.fixture(autouse=True)
def shared_embeddings(shared: Path, monkeypatch: pytest.MonkeyPatch, own_caches: None) -> None:
    del own_caches  # only to come after it
    monkeypatch.setenv("NAPARI_MEDSAM_CACHE", str(shared / "embeddings"))


@pytest.fixture
def request_(shared: Path) -> TrainingRequest:
    return TrainingRequest(shared / "cases", "mine", config=CONFIG, device="cpu")


@pytest.fixture
def start() -> Iterator[Callable[..., TrainingProcess]]:
    running: list[TrainingProcess] = []

    def begin(request: TrainingRequest, listener: Listener, folder: Path | None = None) -> TrainingProcess:
        running.append(TrainingProcess(request, folder or new_run_folder(), listener))
        return running[-1]

    yield begin
    for process in running:
        process.close()


Start = Callable[..., TrainingProcess]


@needs_kill
def test_killed_and_resumed_it_ends_with_the_decoder_of_a_run_that_was_not(
    start: Start, request_: TrainingRequest, shared: Path
) -> None:
    whole = train(replace(request_, output=shared / "whole.safetensors"), shared / "run", lambda _: None)
    assert whole is not None
    told = Listener()
    process = start(request_, told)
    told.wait_for(ended_epoch(2))
    assert unfinished_runs() == []  # it is at work
    os.kill(process._child._process.pid, signal.SIGKILL)
    last = told.wait_for(ended)
    assert last["kind"] == "failed"
    assert "status -9" in last["message"]
    assert str(process.folder) in last["message"]
    assert not process.alive
    assert unfinished_runs() == [process.folder]
    assert not decoders_folder().exists() or not list(decoders_folder().iterdir())

    told = Listener()
    again = TrainingProcess(request_of(process.folder), process.folder, told)
    assert again.wait() == 0
    again.close()
    assert told.kinds == ["dataset", "embedding", "training", "judging", "done"]
    assert json.loads((process.folder / ENDED_NAME).read_text()) == told.events[-1]
    assert all(event["made"] == 0 for event in told.events if event["kind"] == "embedding")
    info = read_info(Path(told.events[-1]["decoder"]))
    assert info.name == "mine"
    assert info.decoder_hash == read_info(whole).decoder_hash
    assert unfinished_runs() == []


def test_stop_keeps_the_best_so_far(start: Start, request_: TrainingRequest) -> None:
    told = Listener()
    process = start(replace(request_, config=replace(CONFIG, epochs=1000, patience=1000)), told)
    told.wait_for(ended_epoch(1))
    asked = time.monotonic()
    process.stop()
    last = told.wait_for(ended)
    assert time.monotonic() - asked < 10  # two seconds, on a machine that is not busy with something else
    assert last["kind"] == "stopped"
    assert read_info(Path(last["decoder"])).verdict is None
    assert process.wait() == 0
    process.stop()  # nobody listens any more
    assert unfinished_runs() == []


PARENT = """
import sys, time
from pathlib import Path
from napari_medsam.finetune.run import TrainingProcess
from napari_medsam.finetune.request import is_at_work, request_of
folder = Path(sys.argv[1])
TrainingProcess(request_of(folder), folder, lambda event: None)
while not is_at_work(folder):
    time.sleep(0.02)
print("at work", flush=True)
time.sleep(600)
"""


@needs_kill
def test_it_ends_with_the_program_that_wanted_it(request_: TrainingRequest) -> None:
    folder = new_run_folder()
    write_request(folder, request_)
    command = [sys.executable, "-c", PARENT, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "at work\n"
        parent.kill()
    deadline = time.monotonic() + 10
    while is_at_work(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_at_work(folder)
    assert unfinished_runs() == [folder]
    assert not (folder / ENDED_NAME).exists()


@needs_kill
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_no_kill_leaves_half_a_decoder(shared: Path, tmp_path: Path) -> None:
    child = Path(__file__).with_name("kill_child.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(child), str(shared / "cases"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [line.rsplit(" ", 2) for line in result.stdout.splitlines()]
    found = {moment: (int(status), int(left)) for moment, status, left in lines}
    assert len(found) == 4
    assert found["replace 2"] == found["fsync 3"] == (-9, 0)
    assert found["replace 3"] == (-9, 1)


def test_a_run_that_cannot_begin_says_why_and_leaves_no_thread(
    start: Start, request_: TrainingRequest
) -> None:
    before = threading.active_count()
    told = Listener()
    process = start(replace(request_, base="nonsense"), told)
    assert process.wait() == 0
    assert told.kinds == ["failed"]
    assert "Unknown model 'nonsense'" in told.events[0]["message"]
    assert unfinished_runs() == []
    process.close()
    process.close()
    assert threading.active_count() == before


def test_closed_at_once_it_tells_nothing_and_can_be_resumed(start: Start, request_: TrainingRequest) -> None:
    told = Listener()
    process = start(request_, told)
    process.close()
    assert not process.alive
    assert told.events == []
    assert unfinished_runs() == [process.folder]
    assert request_of(process.folder) == request_


def test_a_listener_may_close_and_a_folder_may_be_gone(start: Start, request_: TrainingRequest) -> None:
    closed = threading.Event()
    told = Listener()

    def close(event: TypedEvent) -> None:
        told(event)
        started.wait(PATIENCE_S)
        process.close()
        closed.set()

    started = threading.Event()
    process = start(replace(request_, base="nonsense"), close)
    (process.folder / ENDED_NAME).mkdir()  # so that it cannot be written
    started.set()
    assert closed.wait(PATIENCE_S)
    assert told.kinds == ["failed"]


def test_runs_lie_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_folder() == tmp_path / "runs"
    assert unfinished_runs() == []
    assert new_run_folder() != new_run_folder()
    monkeypatch.delenv("NAPARI_MEDSAM_RUNS")
    assert runs_folder().name == "runs"
