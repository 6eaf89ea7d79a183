"""DSC and NSD beside google-deepmind's surface-distance and MONAI, on random masks and, with --data, real ones.

    python benchmarks/metrics_reference.py [--pairs N] [--data DIR]

Random pairs: half 2D, half 3D, with anisotropic spacing: noise, blobs, copies that moved, masks that touch every
border, single pixels, full and empty ones. Bars: DSC to 1e-9, NSD to 1e-6. Where both masks are empty ours
says 1.0 and the references "not a number" (MONAI's DSC: 1.0). MONAI is asked for `use_subvoxels=True`, which is the
same definition of the NSD; its default counts boundary pixels instead. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from scipy import ndimage

from napari_medsam.evaluate.metrics import dice_coefficient, normalized_surface_distance

SEED = 11
KINDS = ("noise", "blobs", "moved", "border", "dots", "full", "one empty", "both empty")
MAX_DSC, MAX_NSD = 1e-9, 1e-6


@dataclass(frozen=True, eq=False)
class Pair:
    """Two bool masks of one shape, the spacing along each axis and a tolerance in its unit."""

    kind: str
    predicted: np.ndarray
    true: np.ndarray
    spacing: tuple[float, ...]
    tolerance: float

    @property
    def both_empty(self) -> bool:
        return not (self.predicted.any() or self.true.any())


@dataclass(frozen=True)
class Scores:
    """DSC and NSD of one pair by one implementation."""

    dsc: float
    nsd: float


def random_pairs(count: int, seed: int = SEED) -> Iterator[Pair]:
    """So many pairs, the kinds and 2D and 3D in turn; the same for a seed, always."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        ndim, kind = 2 + number % 2, KINDS[number // 2 % len(KINDS)]
        shape = tuple(rng.integers(3, 30 if ndim == 2 else 16, size=ndim).tolist())
        predicted, true = _masks(kind, shape, rng)
        spacing = tuple(rng.uniform(0.3, 5.0, size=ndim).tolist())
        tolerance = 0.0 if number % 7 == 0 else float(rng.uniform(0, 4))
        yield Pair(kind, predicted, true, spacing, tolerance)


def ours(pair: Pair) -> Scores:
    return Scores(
        dice_coefficient(pair.predicted, pair.true),
        normalized_surface_distance(pair.predicted, pair.true, pair.spacing, pair.tolerance),
    )


def surface_distance_package(pair: Pair) -> Scores:
    """google-deepmind's scores; both are nan where both masks are empty."""
    import surface_distance

    # Its version 0.1 says np.Inf and np.NaN, names that NumPy 2 no longer has.
    old_names = patch.multiple(np, create=True, Inf=np.inf, NaN=np.nan)
    with np.errstate(invalid="ignore"), old_names:
        found = surface_distance.compute_surface_distances(pair.true, pair.predicted, pair.spacing)
        nsd = surface_distance.compute_surface_dice_at_tolerance(found, pair.tolerance)
        return Scores(
            float(surface_distance.compute_dice_coefficient(pair.true, pair.predicted)),
            float(nsd),
        )


def monai(pair: Pair) -> Scores:
    """MONAI's scores. Where both masks are empty its NSD is nan, and its DSC 1.0 when asked not to leave them out."""
    import torch
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice

    predicted, true = (torch.from_numpy(mask[None, None]) for mask in (pair.predicted, pair.true))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each empty mask
        nsd = compute_surface_dice(
            predicted,
            true,
            [pair.tolerance],
            include_background=True,
            spacing=pair.spacing,
            use_subvoxels=True,
        )
    usual = torch.get_default_dtype()
    torch.set_default_dtype(
        torch.float64
    )  # it divides counts, and would round the quotient to single precision
    try:
        dsc = compute_dice(predicted, true, ignore_empty=False)
    finally:
        torch.set_default_dtype(usual)
    return Scores(float(dsc), float(nsd))


REFERENCES = {"surface-distance": surface_distance_package, "MONAI": monai}


def largest_differences(pairs: list[Pair]) -> dict[str, Scores]:
    """By reference, how far ours is from it at most; infinite where only one of them is a number.

    Of two empty masks ours has to say 1.0, and the reference 1.0 or "not a number".
    """
    found = {}
    for name, reference in REFERENCES.items():
        scored = [(pair, ours(pair), reference(pair)) for pair in pairs]
        found[name] = Scores(
            max(_apart(pair, mine.dsc, theirs.dsc) for pair, mine, theirs in scored),
            max(_apart(pair, mine.nsd, theirs.nsd) for pair, mine, theirs in scored),
        )
    return found


def _apart(pair: Pair, mine: float, theirs: float) -> float:
    if pair.both_empty and math.isnan(theirs):
        theirs = 1.0
    return abs(mine - theirs) if math.isfinite(theirs) else math.inf


def _masks(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    empty = np.zeros(shape, bool)
    if kind == "noise":
        return rng.random(shape) < 0.4, rng.random(shape) < 0.6
    if kind == "blobs":
        return _blobs(shape, rng), _blobs(shape, rng)
    if kind == "moved":
        true = _blobs(shape, rng)
        return np.roll(true, rng.integers(-2, 3, size=len(shape)), axis=tuple(range(len(shape)))), true
    if kind == "border":
        true = ~_blobs(shape, rng)
        for axis in range(len(shape)):
            true[(slice(None),) * axis + (slice(0, None, shape[axis] - 1),)] = True
        return ~ndimage.binary_erosion(~true), true
    if kind == "dots":
        return _dot(shape, rng), _dot(shape, rng)
    if kind == "full":
        return ~empty, _blobs(shape, rng)
    if kind == "one empty":
        pair = (empty, _blobs(shape, rng))
        return pair if rng.random() < 0.5 else (pair[1], pair[0])
    return empty, empty.copy()


def _blobs(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.random(shape), 1.5, mode="nearest")
    return smooth >= np.quantile(smooth, rng.uniform(0.5, 0.9))


def _dot(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(rng.integers(0, shape))] = True
    return mask


def real_pairs(data: Path, volumes: int = 10, planes: int = 20) -> Iterator[Pair]:
    """Hippocampi with the spacing of their headers, and polyps in pixels; each beside a moved, grown copy of itself."""
    import nibabel
    from PIL import Image

    for path in sorted((data / "mr3d_hippocampus" / "masks").iterdir())[:volumes]:
        volume = nibabel.load(path)
        true = np.asarray(volume.dataobj) > 0
        spacing = tuple(float(step) for step in volume.header.get_zooms()[:3])
        yield Pair("real", _changed(true), true, spacing, 2.0)
        stretched = (spacing[0], spacing[1], 2.5 * spacing[2])
        yield Pair("real", _changed(true), true, stretched, 1.0)
    for path in sorted((data / "polyp_kvasir" / "masks").iterdir())[:planes]:
        true = np.asarray(Image.open(path).convert("L")) > 127
        yield Pair("real", _changed(true), true, (1.0, 1.0), 2.0)


def _changed(mask: np.ndarray) -> np.ndarray:
    return np.roll(ndimage.binary_dilation(mask), 1, axis=0)


def main() -> int:
    from lib.images import data_folder
    from lib.record import publish

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--data")
    options = parser.parse_args()
    figures = _figures(f"{options.pairs} random pairs", list(random_pairs(options.pairs)))
    data = data_folder(options.data)
    if (data / "mr3d_hippocampus").is_dir() and (data / "polyp_kvasir").is_dir():
        pairs = list(real_pairs(data))
        figures += _figures(f"{len(pairs)} real pairs", pairs)
    note = "Two empty masks: ours 1.0 by convention, where the references say that it is not a number."
    return publish("metrics_reference", "DSC and NSD beside their reference implementations", figures, note)


def _figures(what: str, pairs: list[Pair]) -> list:
    from lib.record import Figure

    figures = []
    for name, largest in largest_differences(pairs).items():
        figures += [
            Figure(f"{what}: largest difference of the DSC to {name}", largest.dsc, "", MAX_DSC),
            Figure(f"{what}: largest difference of the NSD to {name}", largest.nsd, "", MAX_NSD),
        ]
    return figures


if __name__ == "__main__":
    sys.exit(main())
