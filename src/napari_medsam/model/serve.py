"""The other end of `remote.py`: a process that holds a model and answers requests on its standard streams.

Requests are pickled (number, verb, arguments), answers (number, "done" | "failed", value); what the model has to
say in between comes as (0, "notice" | "progress", value). Encoding and decoding have a thread each, so a box never
waits for a field. The streams belong to the parent that started this process; when they close, it ends.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_medsam.bounded import BoundedMemory
from napari_medsam.errors import MedSAMError, ModelError
from napari_medsam.model.api import DecodedMasks, EncodedFeatures
from napari_medsam.model.catalogue import without_decoder
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.model.local import MedSAM, build_model, load_decoder
from napari_medsam.model.messages import LoadedModel, ModelState
from napari_medsam.model.names import find_model
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam.process import answers_to_parent

Features = npt.NDArray[np.float16]

ENCODER_NICENESS = 10
KEPT_FEATURES = 24  # of 2 MiB each


class Server:
    """One model and the two threads that use it."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._writing = Lock()
        self._model: MedSAM | None = None
        self._base: MedSAM | None = None  # with the decoder that was released with it
        self._features = BoundedMemory[str, Features](KEPT_FEATURES)
        self._encoding = ThreadPoolExecutor(1)
        self._stepped_back = False
        self._prompt_threads = {threading.get_native_id()}
        self._decoding = ThreadPoolExecutor(
            1, initializer=lambda: self._prompt_threads.add(threading.get_native_id())
        )

    def run(self) -> None:
        """Answer until the parent closes the stream."""
        while True:
            try:
                number, verb, arguments = pickle.load(self._requests)
            except EOFError:
                return
            lane = (
                self._decoding
                if verb in ("decode", "decode_prompt", "warm", "use_decoder")
                else self._encoding
            )
            done = lane.submit(getattr(self, verb), *arguments)
            done.add_done_callback(partial(self._answer, number))

    def load(self, name: str, options: dict[str, str]) -> LoadedModel:
        spec = find_model(name)
        self._base = build_model(
            without_decoder(spec),
            **options,
            on_notice=self._tell("notice"),
            progress=lambda *state: self._tell("progress")(state),
        )
        return self.use_decoder(spec.decoder)

    def use_decoder(self, path: Path | None) -> LoadedModel:
        """Answer boxes with the decoder in a file, or with the released one; the encoder and its fields stay."""
        if self._base is None:
            raise ModelError("No model is loaded in this process yet.")
        self._model = model = self._base if path is None else load_decoder(self._base, path)
        return LoadedModel(model.spec, model.frame, model.prompts, self._state())

    def encode(self, prepared: npt.NDArray[np.float32]) -> tuple[EncodedFeatures, ModelState]:
        encoded = self._loaded().encode(prepared)
        if not self._stepped_back:  # loading and the first field are waited for; what follows is not
            self._stepped_back = True
            _step_back(self._prompt_threads)
        return encoded, self._state()

    def decode(
        self, key: str | None, features: Features | None, boxes: npt.NDArray[np.float32]
    ) -> tuple[DecodedMasks, ModelState] | None:
        """None asks for the features: they were not sent, and are not among those kept."""
        return self._decoded(self._loaded().decode, key, features, boxes)

    def decode_prompt(
        self, key: str | None, features: Features | None, prompt: FramePrompt
    ) -> tuple[DecodedMasks, ModelState] | None:
        return self._decoded(self._loaded().decode_prompt, key, features, prompt)

    def _decoded(
        self, decode: Callable[..., DecodedMasks], key: str | None, features: Features | None, wanted: object
    ) -> tuple[DecodedMasks, ModelState] | None:
        if features is None:
            features = self._features.get(key or "")
        elif key is not None:
            self._features.put(key, features)
        return None if features is None else (decode(features, wanted, key=key), self._state())

    def warm(self, key: str, features: Features) -> None:
        self._features.put(key, features)
        self._loaded().warm(features, key=key)

    def _loaded(self) -> MedSAM:
        if self._model is None:
            raise ModelError("No model is loaded in this process yet.")
        return self._model

    def _state(self) -> ModelState:
        model = self._loaded()
        return ModelState(model.encoder_hash, model.decoder_hash, model.precision, model.device)

    def _tell(self, kind: str) -> Callable[[Any], None]:
        return lambda value: self._send((0, kind, value))

    def _answer(self, number: int, done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            self._send((number, "done", done.result()))
        elif isinstance(error, MedSAMError):
            self._send((number, "failed", (type(error).__name__, str(error))))
        else:
            self._send((number, "failed", ("ModelError", f"{type(error).__name__}: {error}")))

    def _send(self, message: tuple[int, str, Any]) -> None:
        with self._writing:
            pickle.dump(message, self._answers, protocol=5)
            self._answers.flush()


def _step_back(keep: set[int]) -> None:
    """Let the window and prompts go before fields: on Linux niceness is a thread's own. `keep` are thread ids."""
    if sys.platform != "linux":
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread not in keep:
            with suppress(OSError):  # it has ended meanwhile
                os.setpriority(os.PRIO_PROCESS, thread, ENCODER_NICENESS)


def main() -> None:
    answers = answers_to_parent()
    keep_freed_memory()
    Server(sys.stdin.buffer, answers).run()
    os._exit(0)  # an encode may still run; nobody waits for it


if __name__ == "__main__":
    main()
