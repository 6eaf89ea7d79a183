"""A MedSAM small enough to train in a test, and datasets of discs on noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from napari_medsam.curation.case import Case, CaseObject, Provenance
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.samples import Sample, samples_of
from napari_medsam.image.field import Frame
from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.local import MedSAM
from napari_medsam.model.networks.decoder import MaskDecoder, SamDecoder
from napari_medsam.model.networks.weights import state_hash
from napari_medsam.model.runtime.host import EncoderHost
from napari_medsam.segment.fields import DEFAULT_POLICY

SIDE = 64
FRAME = Frame(SIDE)
SPEC = ModelSpec("tiny", "lite-medsam", "tiny_vit", "Tiny", "tiny.pth", input_size=SIDE)


@dataclass
class PatchEncoder:
    """Features of a patch of 4 x 4 pixels: a fixed random mixture of them. Counts its calls."""

    device: str = "cpu"
    precision: str = "patches"
    calls: int = 0
    channels: int = 256
    before: Callable[[], None] = lambda: None

    def __call__(self, prepared: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.before()
        patches = prepared.mean(axis=0).reshape(16, 4, 16, 4).transpose(1, 3, 0, 2).reshape(16, 256)
        mixture = np.random.default_rng(7).normal(size=(self.channels, 16)).astype(np.float32)
        return (mixture @ patches).reshape(self.channels, 16, 16).astype(np.float16)


@dataclass
class MemoryCache:
    """What training needs of an EmbeddingCache, for features of any shape."""

    kept: dict[str, np.ndarray] = field(default_factory=dict)

    def get(self, key: str) -> np.ndarray | None:
        return self.kept.get(key)

    def put(self, key: str, features: np.ndarray, _info: object = None) -> bool:
        self.kept[key] = features
        return True


def seeded_decoder(seed: int = 0, dim: int = 256) -> SamDecoder:
    """Weights as a new network has them; the tokens too, which have no initialiser."""
    torch.manual_seed(seed)
    decoder = SamDecoder(SIDE) if dim == 256 else SamDecoder(SIDE, MaskDecoder(dim, mlp_dim=dim), dim)
    with torch.no_grad():
        for name, value in decoder.state_dict().items():
            if name.endswith(("matrix", "embed.weight", "token.weight", "tokens.weight")) or "point" in name:
                value.normal_()
    return decoder.eval()


def tiny_model(encoder: PatchEncoder, seed: int = 0) -> MedSAM:
    decoder = seeded_decoder(seed, encoder.channels)
    host = EncoderHost(lambda *_: encoder, "cpu", "torch", "tiny", lambda _: None)
    host.precision = encoder.precision
    return MedSAM(SPEC, host, decoder, ("e" * 64, state_hash(decoder.state_dict())))


def disc_case(
    seed: int, shape: tuple[int, int] = (64, 64), count: int = 1, group: str | None = None, radius: float = 17
) -> Case:
    """Bright discs, side by side, on noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    gts = np.zeros(shape, np.int32)
    for label in range(1, count + 1):
        row, col = shape[0] / 2 + rng.uniform(-3, 3), shape[1] * (label - 0.5) / count + rng.uniform(-3, 3)
        gts[np.hypot(rows - row, cols - col) < radius] = label
    grey = np.clip(rng.normal(90, 25, shape) + 80 * (gts > 0), 0, 255).astype(np.uint8)
    objects = tuple(
        CaseObject(label, "cell" if label % 2 else "debris", 2 - label % 2) for label in range(1, count + 1)
    )
    return Case(
        np.repeat(grey[..., None], 3, axis=2),
        gts,
        (1.0, 1.0),
        objects,
        source=Provenance(layer=f"discs {seed}"),
        group=group,
    )


def write_discs(folder: Path, seeds: Sequence[int] = range(6), **options: object) -> CuratedDataset:
    dataset = CuratedDataset(folder, create=True)
    dataset.extend([disc_case(seed, **options) for seed in seeds])  # type: ignore[arg-type]
    return dataset


def disc_samples(seeds: Sequence[int], config: FinetuneConfig | None = None) -> list[Sample]:
    config = config or FinetuneConfig()
    return [
        sample
        for seed in seeds
        for sample in samples_of(disc_case(seed), f"case {seed}", config, FRAME, DEFAULT_POLICY)
    ]
