"""The encoder compiled by OpenVINO for the CPU, from the loaded module in memory, and kept for the next start."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medsam.files import replacing

if TYPE_CHECKING:
    from torch import nn

_KEPT_BLOBS = 4
_DIGEST_BYTES = 32
_CPU_INFO = Path("/proc/cpuinfo")


def openvino_dtype(cpu_info: Path = _CPU_INFO) -> str:
    """ "bfloat16" on a CPU with matrix units for it (AMX), else "float32".

    AVX-512 BF16 alone is no reason: measured on such a CPU, bfloat16 took 1.4 times as long as float32.
    """
    try:
        return "bfloat16" if "amx_bf16" in cpu_info.read_text().split() else "float32"
    except OSError:  # not Linux
        return "float32"


def import_openvino() -> Any:
    """The openvino module, imported without its telemetry.

    Its import reports to its makers, by a forked process that may wait for ever with our streams in its hands.
    Nobody asked for that, and what is done with a user's images is told to nobody.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino


class OpenVinoEncoder:
    """An encoder in OpenVINO: float32 on any CPU, bfloat16 where the CPU has matrix units for it.

    make_module() gives the loaded module (float32, on the CPU) and is called only when nothing compiled for
    `encoder_hash` lies in `folder`. What is compiled is written there whole or not at all and verified when
    read; a failed write only means compiling again next time.
    """

    device = "cpu"

    def __init__(
        self, make_module: Callable[[], nn.Module], size: int, encoder_hash: str, folder: Path
    ) -> None:
        ov = import_openvino()
        dtype = openvino_dtype()
        self.precision = f"openvino-{dtype}"
        core = ov.Core()
        machine = f"{ov.get_version()} {core.get_property('CPU', 'FULL_DEVICE_NAME')}"
        machine_hash = hashlib.sha256(machine.encode()).hexdigest()
        path = folder / f"{encoder_hash[:32]}-{size}-{dtype}-{machine_hash[:16]}.ovblob"
        hints: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = _imported(core, path, hints)
        if self._compiled is None:
            self._compiled = core.compile_model(_graph(ov, make_module(), size), "CPU", hints)
            _keep(path, self._compiled.export_model())

    def __call__(self, prepared: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
        features: npt.NDArray[np.float32] = self._compiled(prepared[None])[0]
        half: npt.NDArray[np.float16] = features[0].astype(np.float16)
        return half


def _graph(ov: Any, module: nn.Module, size: int) -> Any:
    from napari_medsam.model.networks.tinyvit import TinyViT

    if isinstance(module, TinyViT):
        from napari_medsam.model.runtime.openvino_graph import tinyvit_graph

        return tinyvit_graph(ov, module, size)
    import warnings

    import torch

    with warnings.catch_warnings():  # tracing segment-anything's asserts and size checks, which hold here
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return ov.convert_model(module, example_input=torch.zeros(1, 3, size, size), input=[1, 3, size, size])


def _imported(core: Any, path: Path, hints: dict[str, Any]) -> Any:
    """The model compiled earlier, or None when there is none or it is not whole."""
    try:
        content = path.read_bytes()
        blob = content[_DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != content[:_DIGEST_BYTES]:
            return None
        path.touch()
        return core.import_model(blob, "CPU", hints)
    except (OSError, RuntimeError):  # absent, unreadable, or of an OpenVINO that reads it no more
        return None


def _keep(path: Path, blob: Any) -> None:
    content = bytes(blob.getvalue() if hasattr(blob, "getvalue") else blob)
    with suppress(OSError):  # a full or read-only disk costs the next start some time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(hashlib.sha256(content).digest() + content)
        kept = sorted(path.parent.glob("*.ovblob"), key=lambda other: other.stat().st_mtime, reverse=True)
        for old in kept[_KEPT_BLOBS:]:
            old.unlink(missing_ok=True)
