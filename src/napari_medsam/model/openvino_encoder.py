"""The encoder compiled by OpenVINO for the CPU, from the loaded module in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn


def openvino_dtype() -> str:
    return "float32"


class OpenVinoEncoder:
    device = "cpu"

    def __init__(self, module: nn.Module, size: int, encoder_hash: str, folder: Path) -> None:
        import openvino as ov

        from napari_medsam.model.openvino_graph import tinyvit_graph

        self.precision = f"openvino-{openvino_dtype()}"
        core = ov.Core()
        self._compiled = core.compile_model(
            tinyvit_graph(module, size),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"},
        )

    def __call__(self, prepared: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
        features: Any = self._compiled(prepared[None])[0]
        return features[0].astype(np.float16)
