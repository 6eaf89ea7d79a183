"""Trains on the tiny model in children that are killed at chosen and at random moments; run by test_process.

Arguments: a dataset, a folder to work in. Prints a line for each child: the moment, and the decoders it left.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from finetune_fakes import MemoryCache, PatchEncoder, tiny_model

from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.train import train
from napari_medsam.model.decoder_file import read_decoder

MODEL = tiny_model(PatchEncoder())


def run(dataset: Path, folder: Path) -> None:
    config = FinetuneConfig(epochs=1, batch=1, shares=(1.0,))
    request = TrainingRequest(dataset, "mine", config=config, output=folder / "mine.safetensors")
    train(request, folder / "run", lambda _: None, cache=MemoryCache(), build=lambda *_: MODEL)  # type: ignore[arg-type]


def kill_at(step: str, nth: int) -> None:
    """Let the nth call of a function of `os` be the process's last."""
    calls: list[object] = []
    original = getattr(os, step)

    def killing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(os, step, killing)


def kill_after(seconds: float) -> None:
    def wait() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def child(dataset: Path, folder: Path, arm: Callable[[], None]) -> int:
    """The signal a child ended by, 0 when it came to its end."""
    pid = os.fork()
    if pid == 0:
        arm()
        run(dataset, folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    dataset, work = Path(sys.argv[1]), Path(sys.argv[2])
    chance = random.Random(0)
    # replace 1 gives the checkpoint its name, 2 the decoder, 3 the decoder with its verdict
    moments: list[tuple[str, Callable[[], None]]] = [
        ("replace 2", lambda: kill_at("replace", 2)),
        ("replace 3", lambda: kill_at("replace", 3)),
        ("fsync 3", lambda: kill_at("fsync", 3)),
        *((f"{s:.2f} s", lambda s=s: kill_after(s)) for s in (chance.uniform(0.1, 2) for _ in range(1))),
    ]
    for name, arm in moments:
        folder = work / name.replace(" ", "-")
        folder.mkdir()
        status = child(dataset, folder, arm)
        left = sorted(folder.glob("*.safetensors"))
        for path in left:
            read_decoder(path, MODEL.encoder_hash, MODEL.decoder_state())
        print(name, status, len(left), flush=True)


main()
