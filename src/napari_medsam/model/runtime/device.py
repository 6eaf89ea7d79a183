"""Which device a model runs on."""

from __future__ import annotations

from pathlib import Path

from napari_medsam.errors import ModelError

DEVICES = ("auto", "cuda", "mps", "cpu")


def available_devices() -> tuple[str, ...]:
    """Devices torch can use on this machine, the fastest first; "cpu" is always the last."""
    import torch

    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def choose_device(device: str) -> str:
    """Settle "auto" and check that a named device ("cuda", "cuda:1", "mps", "cpu") is there.

    Raises ModelError with the choices of this machine.
    """
    present = available_devices()
    if device == "auto":
        return present[0]
    if device.partition(":")[0] in present:
        return device
    what = "is not available here" if device.partition(":")[0] in DEVICES else "is unknown"
    raise ModelError(f"The device {device!r} {what}. Choose auto or one of {', '.join(present)}.")


def trains_in_bfloat16(device: str, cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether products of a training step are quicker in bfloat16: on a CPU with instructions for it.

    Measured on one with AVX-512 BF16: a step takes half as long. False where the system does not tell (not Linux).
    """
    if device != "cpu":
        return False
    try:
        return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_info.read_text().split())
    except OSError:
        return False
