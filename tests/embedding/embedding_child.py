"""A process that embeds fields, for the tests to kill: python embedding_child.py STORE FIELDS.

Waits for a line on its input, then says on its output `begun KEY` at each call of the encoder, `kept KEY` when
a field is on disk, and `end` when all are.
"""

from __future__ import annotations

import os
import sys
import warnings
from concurrent.futures import as_completed
from pathlib import Path

import numpy as np
from embedding_fakes import FakeModel, make_plane, make_request

from napari_medsam.embedding.cache import EmbeddingCache, embedding_key
from napari_medsam.embedding.scheduler import EmbeddingScheduler


def say(*words: str) -> None:
    os.write(1, f"{' '.join(words)}\n".encode())  # one write: two threads speak, and a kill cuts no line


def main(store: str, fields: int) -> None:
    warnings.simplefilter("error")
    model = FakeModel()

    def begin(prepared: np.ndarray) -> None:
        say("begun", embedding_key(prepared, model.encoder_hash, model.precision))

    model.before_encode = begin
    plane = make_plane(shape=(8, 4 * fields + 4))
    cache = EmbeddingCache(Path(store), memory_bytes=0)
    sys.stdin.readline()
    with EmbeddingScheduler(lambda: model, cache) as scheduler:
        for future in as_completed([scheduler.submit(make_request(plane, at)) for at in range(fields)]):
            say("kept", future.result().key)
    assert cache.problem is None
    say("end")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
