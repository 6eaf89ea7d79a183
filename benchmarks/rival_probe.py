"""micro-sam's part of benchmarks/rival.py, run by the Python that has micro-sam; this package is not needed here.

    PYTHON -P benchmarks/rival_probe.py TASK FOLDER

FOLDER holds image.npy, boxes.json and settings.json. Each task is one process and prints one line of JSON:

    weights  write random weights of MobileSAM to vit_t.pt
    cold     embed all tiles into rival.zarr, answer the first box, then all boxes again and again
    lone     embed only the tiles that touch the first box, in memory, and answer it
    again    answer the first box from rival.zarr

Loading the model and one warm-up are not in the times; `start` is all from the start of the process to there.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

AGAIN = 5  # rounds over all boxes
BEGAN = "RIVAL_BEGAN"  # environment variable: when this process was started, in seconds since the epoch


# for both sides ------------------------------------------------------------------------------------------------


class Memory:
    """Resident memory of this process from now on, in MB (10^6). Linux only; elsewhere nothing is told."""

    def __init__(self) -> None:
        gc.collect()
        self._known = Path("/proc/self/clear_refs").exists()
        if self._known:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
            self._before = self._read("VmRSS")

    def figures(self) -> dict[str, float]:
        """`peak_mb`: the largest size since the beginning; `extra_mb`: by how much it was more than then."""
        if not self._known:
            return {}
        peak = self._read("VmHWM")
        return {"peak_mb": peak, "extra_mb": peak - self._before}

    def _read(self, name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6


def clocked(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and what it gave."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def since_start() -> float:
    """Seconds since the process was started, its imports included."""
    return time.time() - float(os.environ[BEGAN])


def bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def material(folder: Path) -> tuple[np.ndarray, list[list[float]]]:
    """The image (H, W) uint8, in memory, and the boxes (r0, c0, r1, c1)."""
    return np.load(folder / "image.npy"), json.loads((folder / "boxes.json").read_text())


# micro-sam -----------------------------------------------------------------------------------------------------


class Rival:
    """micro-sam with its smallest encoder on the CPU, loaded and warm, and how it answers boxes."""

    def __init__(self, folder: Path) -> None:
        warnings.simplefilter("ignore")
        import torch
        from micro_sam.prompt_based_segmentation import segment_from_box
        from micro_sam.util import get_sam_model, precompute_image_embeddings

        settings = json.loads((folder / "settings.json").read_text())
        torch.set_num_threads(settings["threads"])
        self.tile, self.halo = settings["tile"], settings["halo"]
        self.predictor = get_sam_model("vit_t", device="cpu", checkpoint_path=folder / "vit_t.pt")
        self._precompute, self._segment = precompute_image_embeddings, segment_from_box
        self.predictor.set_image(np.zeros((1024, 1024, 3), np.uint8))
        self.predictor.predict(box=np.array([100, 100, 300, 300]), multimask_output=False)
        self.predictor.reset_image()
        self.start = since_start()

    def embed(self, image: np.ndarray, **options: Any) -> Any:
        """Embeddings of the tiles of an image (H, W), or those that lie in the store."""
        tiles = {"tile_shape": (self.tile, self.tile), "halo": (self.halo, self.halo)}
        return self._precompute(self.predictor, image, ndim=2, verbose=False, **tiles, **options)

    def answer(self, embeddings: Any, box: list[float], shape: tuple[int, ...]) -> np.ndarray:
        """The mask of a box, (1, H, W) bool."""
        mask = np.asarray(self._segment(self.predictor, np.array(box), image_embeddings=embeddings))
        assert mask.shape == (1, *shape)
        assert mask.dtype == bool
        return mask


def weights(folder: Path) -> dict[str, Any]:
    import torch

    warnings.simplefilter("ignore")
    from mobile_sam import sam_model_registry

    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_t"]().state_dict(), folder / "vit_t.pt")
    return {}


def cold(folder: Path) -> dict[str, Any]:
    rival = Rival(folder)
    image, boxes = material(folder)
    memory = Memory()
    store = folder / "rival.zarr"
    embed_s, embeddings = clocked(lambda: rival.embed(image, save_path=store))
    box_s, _ = clocked(lambda: rival.answer(embeddings, boxes[0], image.shape))
    warm = [
        clocked(lambda box=box: rival.answer(embeddings, box, image.shape))[0]
        for _ in range(AGAIN)
        for box in boxes
    ]
    return {
        "first_s": embed_s + box_s,
        "embed_s": embed_s,
        "pieces": len(embeddings["features"]),
        "warm_s": warm,
        "bytes": bytes_under(store),
        "parameters": sum(part.numel() for part in rival.predictor.model.image_encoder.parameters()),
        "version": version("micro-sam"),
        **memory.figures(),
    }


def lone(folder: Path) -> dict[str, Any]:
    """What a script can ask for that knows its box beforehand. One batch, since 1.8.14 fails on empty ones."""
    rival = Rival(folder)
    image, boxes = material(folder)
    r0, c0, r1, c1 = (int(value) for value in boxes[0])
    mask = np.zeros(image.shape, bool)
    mask[r0:r1, c0:c1] = True
    batch = -(-image.shape[0] // rival.tile) * -(-image.shape[1] // rival.tile)

    def first() -> Any:
        embeddings = rival.embed(image, mask=mask, batch_size=batch)
        rival.answer(embeddings, boxes[0], image.shape)
        return embeddings

    seconds, embeddings = clocked(first)
    return {"first_s": seconds, "pieces": len(embeddings["features"])}


def again(folder: Path) -> dict[str, Any]:
    rival = Rival(folder)
    image, boxes = material(folder)

    def first() -> None:
        rival.answer(rival.embed(image, save_path=folder / "rival.zarr"), boxes[0], image.shape)

    return {"first_s": clocked(first)[0], "start_s": rival.start}


if __name__ == "__main__":
    tasks = {"weights": weights, "cold": cold, "lone": lone, "again": again}
    print(json.dumps(tasks[sys.argv[1]](Path(sys.argv[2]))))
