"""Encoder backends: prepared pixels to features. torch is the reference; OpenVINO is faster on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

Backend = Literal["auto", "torch", "openvino"]
BACKENDS: tuple[Backend, ...] = ("auto", "torch", "openvino")


class Encoder(Protocol):
    """Turns one prepared image into features.

    precision names everything that may change the features' digits: backend, device kind and dtype.
    """

    precision: str
    device: str

    def __call__(self, prepared: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
        """(3, S, S) float32 to (256, 64, 64) float16."""
        ...


def choose_backend(backend: str, device: str) -> Literal["torch", "openvino"]:
    """Settle "auto": OpenVINO on a CPU where it is installed, else torch.

    Raises ModelError for an unknown backend, one that is not installed, or OpenVINO away from the CPU.
    """
    if backend not in BACKENDS:
        raise ModelError(f"Unknown backend {backend!r}. Choose one of {', '.join(BACKENDS)}.")
    installed = find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise ModelError("The openvino backend is not installed. Run: pip install openvino")
    if backend == "openvino" and device != "cpu":
        raise ModelError(f"The openvino backend runs on the CPU, not on {device}. Choose backend 'torch'.")
    if backend == "auto":
        return "openvino" if installed and device == "cpu" else "torch"
    return "openvino" if backend == "openvino" else "torch"


def encoder_precision(backend: str, device: str) -> str:
    """The precision a backend will have on a device, known before anything is compiled."""
    if backend == "openvino":
        from napari_medsam.model.runtime.openvino_encoder import openvino_dtype

        return f"openvino-{openvino_dtype()}"
    kind = device.partition(":")[0]
    return "torch-float32" if kind == "cpu" else f"torch-{kind}-float16"


def build_encoder_backend(
    make_module: Callable[[], nn.Module],
    size: int,
    device: str,
    backend: str,
    encoder_hash: str,
    folder: Path,
) -> Encoder:
    """An encoder in the backend chosen for the device.

    make_module() gives the loaded module (float32, on the CPU, not fused); it is not called when `folder`,
    which keeps what a backend compiles, has the encoder of this hash.
    """
    if choose_backend(backend, device) == "openvino":
        from napari_medsam.model.runtime.openvino_encoder import OpenVinoEncoder

        return OpenVinoEncoder(make_module, size, encoder_hash, folder)
    return TorchEncoder(make_module(), device)


class TorchEncoder:
    """The module in torch: float32 on the CPU, float16 on a GPU."""

    def __init__(self, module: nn.Module, device: str) -> None:
        import torch

        self.device = device
        self._kind = device.partition(":")[0]
        self._dtype = torch.float32 if device == "cpu" else torch.float16
        self.precision = encoder_precision("torch", device)
        module = fuse_batch_norms(module.eval())
        self._module = module.to(device).to(memory_format=torch.channels_last)

    def __call__(self, prepared: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(prepared)[None].to(self.device)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self._kind, self._dtype, enabled=self._dtype != torch.float32):
                features = self._module(pixels)[0]
            return _half(features)


def _half(features: torch.Tensor) -> npt.NDArray[np.float16]:
    """Features as float16 in C order on the CPU."""
    half: npt.NDArray[np.float16] = features.half().contiguous().cpu().numpy()
    return half


def fuse_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every batch norm that directly follows a convolution in a Sequential into it, in place.

    The features stay the same but for rounding.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for child in module.modules():
        if not isinstance(child, nn.Sequential):
            continue
        names = list(child._modules)
        for first, second in pairwise(names):
            conv, norm = child._modules[first], child._modules[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                child._modules[first] = fuse_conv_bn_eval(conv, norm)
                child._modules[second] = nn.Identity()
    return module
