"""One encoder at work: built on first use, one call at a time, on the CPU when a GPU's memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ModelError
from napari_medsam.model.runtime.encoders import Encoder, encoder_precision

Make = Callable[[str, str], Encoder]
Result = TypeVar("Result")


class EncoderHost:
    """Shared by every MedSAM that differs in its decoder only.

    make(device, backend) builds an encoder. device and precision say what the next encode will use. Leaving
    the GPU is announced once, through on_notice.
    """

    def __init__(
        self, make: Make, device: str, backend: str, name: str, on_notice: Callable[[str], None]
    ) -> None:
        self.device, self.precision = device, encoder_precision(backend, device)
        self._make: Make | None = make
        self._backend, self._name, self._on_notice = backend, name, on_notice
        self._encoder: Encoder | None = None
        self._left_gpu = False
        self._encode_lock, self._state_lock = Lock(), Lock()

    def encode(self, prepared: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], str]:
        """Features of one prepared field and the precision they were made in. Raises ModelError."""
        with self._encode_lock:
            return self.run(lambda: self._encode(prepared), "encoding")

    def run(self, work: Callable[[], Result], doing: str) -> Result:
        """The result of work, done once more on the CPU if the GPU runs out of memory. Raises ModelError."""
        try:
            return work()
        except RuntimeError as error:
            if not self._leave_gpu(error):
                raise self._translated(error, doing) from error
        try:
            return work()
        except RuntimeError as error:
            raise self._translated(error, doing) from error

    def _leave_gpu(self, error: RuntimeError) -> bool:
        """True when `error` was a GPU's lack of memory and the CPU serves from now on."""
        if not _is_out_of_memory(error):
            return False
        with self._state_lock:
            if self.device == "cpu":
                return self._left_gpu
            was, self.device, self._left_gpu = self.device, "cpu", True
            self._backend, self.precision = "torch", encoder_precision("torch", "cpu")
        self._on_notice(
            f"{self._name} ran out of memory on {was} and continues on the CPU, which is slower. "
            "To go back, close other programs that use the GPU and load the model again."
        )
        return True

    def _translated(self, error: RuntimeError, doing: str) -> ModelError:
        """An error of torch or OpenVINO as one a user can act on."""
        if _is_out_of_memory(error):
            return ModelError(
                f"{self._name} ran out of memory while {doing} on {self.device}. "
                "Close other programs or choose a smaller model."
            )
        return ModelError(
            f"{self._name} failed while {doing} on {self.device}: {error}. "
            "Load the model again, with backend 'torch' or on the CPU."
        )

    def _encode(self, prepared: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], str]:
        encoder = self._ready()
        return encoder(prepared), encoder.precision

    def _ready(self) -> Encoder:
        if self._encoder is not None and self._encoder.device != self.device:
            self._encoder = None
            _empty_cache()
        if self._encoder is None:
            self._encoder = self._build()
            if self.device == "cpu":  # no move can follow, so the plain weights need not be kept
                self._make = None
        return self._encoder

    def _build(self) -> Encoder:
        assert self._make is not None
        try:
            return self._make(self.device, self._backend)
        except (RuntimeError, ImportError) as error:
            if self._backend != "openvino":
                raise
            self._on_notice(
                f"OpenVINO could not be used for {self._name} ({error}); torch takes over, which is slower. "
                "Reinstall it with: pip install --upgrade openvino"
            )
            self._backend, self.precision = "torch", encoder_precision("torch", self.device)
            return self._make(self.device, self._backend)


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    text = str(error).lower()
    known = isinstance(error, torch.cuda.OutOfMemoryError)
    return known or "out of memory" in text or "can't allocate memory" in text  # MPS and CPU raise plain ones


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
