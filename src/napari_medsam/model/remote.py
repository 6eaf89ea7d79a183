"""A model in a process of its own, so that a window never waits for it.

Importing torch, compiling a network and encoding hold Python's interpreter lock for stretches that a person sees
as a frozen window; some graphics drivers and torch even carry clashing copies of LLVM. In another process none of
that touches the window, and all memory of the model, on the GPU too, is free again when it is closed.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from napari_medsam import errors
from napari_medsam.errors import Cancelled, ModelError
from napari_medsam.model.api import DecodedMasks, EncodedFeatures
from napari_medsam.model.catalogue import same_encoder
from napari_medsam.model.families.registry import FAMILIES
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.model.messages import LoadedModel
from napari_medsam.model.names import find_model
from napari_medsam.process import ChildProcess

Notice = Callable[[str], None]
Progress = Callable[[int, int], None]
STOP_CHECK_S = 0.1


class ModelProcess:
    """Sends requests to a child process and hands its answers to those who asked. Thread-safe."""

    def __init__(self, on_notice: Notice | None = None, progress: Progress | None = None) -> None:
        self._on_notice = on_notice
        self._progress = progress
        self._numbers = itertools.count(1)
        self._pending: dict[int, Future[Any]] = {}
        self._lock = Lock()
        self._ended = False
        self._child = ChildProcess("napari_medsam.model.serve")
        self._child.listen("medsam-model", self._read)

    @property
    def alive(self) -> bool:
        return not self._ended and self._child.status is None

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Send a request and wait for its answer. Raises the MedSAMError it was answered with."""
        return self.send(verb, *arguments).result()

    def send(self, verb: str, *arguments: Any) -> Future[Any]:
        """Send a request; the future holds its answer. Raises ModelError when the process has ended."""
        future: Future[Any] = Future()
        with self._lock:
            if self._ended:
                self._refuse()
            number = next(self._numbers)
            self._pending[number] = future
            try:
                pickle.dump((number, verb, arguments), self._child.requests, protocol=5)
                self._child.requests.flush()
            except OSError:
                self._pending.pop(number, None)
                self._refuse()
        return future

    def close(self) -> None:
        """End the process, whatever it is doing, and the thread that listens to it."""
        with self._lock:
            self._ended = True
        self._child.close()

    def _read(self, answers: IO[bytes]) -> None:
        while True:
            try:
                number, kind, value = pickle.load(answers)
            except (EOFError, OSError, pickle.UnpicklingError, ValueError):
                break
            if number:
                self._resolve(number, kind, value)
            elif kind == "notice" and self._on_notice is not None:
                self._on_notice(value)
            elif kind == "progress" and self._progress is not None:
                self._progress(*value)
        self._give_up()

    def _resolve(self, number: int, kind: str, value: Any) -> None:
        with self._lock:
            future = self._pending.pop(number, None)
        if future is None:
            return
        if kind == "done":
            future.set_result(value)
        else:
            name, message = value
            future.set_exception(getattr(errors, name, ModelError)(message))

    def _give_up(self) -> None:
        with self._lock:
            self._ended = True
            waiting, self._pending = list(self._pending.values()), {}
        for future in waiting:
            future.set_exception(ModelError(self._epitaph()))

    def _refuse(self) -> NoReturn:
        raise ModelError(self._epitaph())

    def _epitaph(self) -> str:
        said = self._child.last_words()
        return (
            f"The model's process ended (status {self._child.status}{said and f', {said!r}'}); it may have run out of "
            "memory. It starts again with the next prompt. If that fails too, choose another model or device."
        )


class RemoteMedSAM:
    """A model in a `ModelProcess`, with the verbs of `napari_medsam.model.local.MedSAM`."""

    def __init__(self, process: ModelProcess, loaded: LoadedModel) -> None:
        self._process = process
        self._state = loaded.state
        self._sent: set[str] = set()
        self._family = FAMILIES[loaded.spec.family]
        self.spec = loaded.spec
        self.name = loaded.spec.name
        self.frame = loaded.frame
        self.prompts = loaded.prompts

    @property
    def alive(self) -> bool:
        """Whether the process still answers."""
        return self._process.alive

    @property
    def encoder_hash(self) -> str:
        return self._state.encoder_hash

    @property
    def decoder_hash(self) -> str:
        return self._state.decoder_hash

    @property
    def precision(self) -> str:
        return self._state.precision

    @property
    def device(self) -> str:
        return self._state.device

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `MedSAM.prepare`; done in this process, it needs no torch."""
        return self._family.prepare(self.frame.size, pixels)

    def encode(self, prepared: npt.NDArray[np.float32]) -> EncodedFeatures:
        """See `MedSAM.encode`. Raises ModelError also when the process ends meanwhile."""
        encoded: EncodedFeatures
        encoded, self._state = self._process.ask("encode", prepared)
        return encoded

    def decode(
        self, features: npt.NDArray[np.float16], boxes: npt.NDArray[np.float32], *, key: str | None = None
    ) -> DecodedMasks:
        """See `MedSAM.decode`. With a key the features travel once, not with every box."""
        return self._decoded("decode", features, np.asarray(boxes, dtype=np.float32), key)

    def decode_prompt(
        self, features: npt.NDArray[np.float16], prompt: FramePrompt, *, key: str | None = None
    ) -> DecodedMasks:
        """See `MedSAM.decode_prompt`."""
        return self._decoded("decode_prompt", features, prompt, key)

    def _decoded(
        self, verb: str, features: npt.NDArray[np.float16], wanted: Any, key: str | None
    ) -> DecodedMasks:
        answer = None
        if key is not None and key in self._sent:
            answer = self._process.ask(verb, key, None, wanted)
        if answer is None:
            answer = self._process.ask(verb, key, np.asarray(features), wanted)
            if key is not None:
                self._sent.add(key)
        decoded: DecodedMasks
        decoded, self._state = answer
        return decoded

    def warm(self, features: npt.NDArray[np.float16], *, key: str) -> None:
        """See `MedSAM.warm`. Returns at once; the process keeps the features, so that boxes need not bring them."""
        with suppress(ModelError):  # the process has ended, which the next box finds out
            self._process.send("warm", key, np.asarray(features))
            self._sent.add(key)

    def switched(self, name_or_path: str | Path) -> RemoteMedSAM | None:
        """The model of this name in the same process, or None where it needs another encoder.

        Takes as long as reading a decoder. This object's boxes are answered by the new decoder too from then on.
        Raises CheckpointError and ModelError, as loading does, for a name or decoder that cannot be used; then
        nothing changes.
        """
        spec = find_model(name_or_path)
        if not same_encoder(self.spec, spec):
            return None
        return RemoteMedSAM(self._process, self._process.ask("use_decoder", spec.decoder))

    def close(self) -> None:
        self._process.close()


def start_model(
    name_or_path: str | Path,
    device: str = "auto",
    *,
    backend: str = "auto",
    on_notice: Notice | None = None,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> RemoteMedSAM:
    """Load a model in a process of its own; the arguments and errors are those of `medsam.build_model`.

    Once `stopping()` is true the process is ended and Cancelled is raised.
    """
    process = ModelProcess(on_notice, progress)
    try:
        answer = process.send("load", str(name_or_path), {"device": device, "backend": backend})
        while not wait([answer], timeout=STOP_CHECK_S).done:
            if stopping():
                raise Cancelled(f"Loading {name_or_path} was cancelled.")
        return RemoteMedSAM(process, answer.result())
    except BaseException:
        process.close()
        raise
