"""The training process: reads the request in its run's folder, writes one JSON event a line, ends when told to.

A line on standard input asks it to stop and to keep the best decoder so far. When the stream closes, the program that
wanted the decoder is gone: the process ends at once, and the run can be resumed from its checkpoint.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

from napari_medsam.errors import MedSAMError
from napari_medsam.finetune.events import Event, Failed, to_line
from napari_medsam.finetune.request import at_work, request_of
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam.process import answers_to_parent, step_back

NICENESS = 15


def main() -> None:
    folder = Path(sys.argv[1])
    events = io.TextIOWrapper(answers_to_parent(), encoding="utf-8", line_buffering=True)
    step_back(NICENESS)
    stop = threading.Event()
    threading.Thread(target=_listen, args=(stop,), daemon=True).start()

    def emit(event: Event) -> None:
        events.write(to_line(event) + "\n")

    keep_freed_memory()
    try:
        from napari_medsam.finetune.train import train

        with at_work(folder):
            train(request_of(folder), folder, emit, stop.is_set)
    except MedSAMError as error:
        emit(Failed(str(error)))
    except MemoryError:
        emit(Failed("Training failed: out of memory. Close other programs, or use fewer cases."))
    except Exception as error:
        emit(Failed(f"Training failed: {type(error).__name__}: {error}. More is in {folder / 'log.txt'}."))
        raise


def _listen(stop: threading.Event) -> None:
    for _ in sys.stdin:
        stop.set()
    os._exit(0)


if __name__ == "__main__":
    main()
