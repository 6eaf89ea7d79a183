"""Images and masks to curate, drawn here: a bright disc on a noisy ground, as pictures and as volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_medsam_training.curate import main


def disc(
    shape: tuple[int, ...] = (64, 80), radius: float = 14, centre: tuple[float, ...] | None = None
) -> np.ndarray:
    """A mask: a disc, or a ball in three axes."""
    middle = centre or tuple(n / 2 for n in shape)
    grid = np.meshgrid(*(np.arange(n) - m for n, m in zip(shape, middle, strict=True)), indexing="ij")
    return sum(axis**2 for axis in grid) < radius**2


def grey(seed: int, inside: np.ndarray, dtype: str = "u1") -> np.ndarray:
    """An image of such a mask; another one for each seed."""
    noise = np.random.default_rng(seed).normal(60, 8, inside.shape)
    return (noise + 90 * inside).clip(0, 255).astype(dtype)


def save_nifti(path: Path, data: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1), **affine: Any) -> None:
    """(x, y, z) to a file; `affine` gives another one, or `shift` moves it."""
    import nibabel as nib

    matrix = affine.get("affine", np.diag([*spacing, 1.0]))
    matrix = matrix.copy()
    matrix[:3, 3] += affine.get("shift", 0)
    nib.save(nib.Nifti1Image(data, matrix), path)


def folders(root: Path) -> tuple[Path, Path, Path]:
    """(images, masks, dataset); the first two are made."""
    places = root / "images", root / "masks", root / "dataset"
    for place in places[:2]:
        place.mkdir(parents=True, exist_ok=True)
    return places


def run_curate(root: Path, *more: str, modality: str = "US", target: str = "lesion") -> int:
    """The command, in this process; gives its exit status."""
    images, masks, dataset = map(str, folders(root))
    return main([images, masks, dataset, "--modality", modality, "--target", target, "--quiet", *more])
