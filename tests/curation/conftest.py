"""Small cases to write and read: made from a seed, so that two calls give the same content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.curation.case import Case, CaseObject, ContrastRecord, ModelRecord, Provenance


def build_case(seed: int = 0, count: int = 3, depth: int | None = None, **changes: Any) -> Case:
    """A plane (or `depth` slices) of squares 4 px wide, each with a drawn box and a prediction."""
    rng = np.random.default_rng(seed)
    columns = 20
    shape = (8 * (1 + (count - 1) // columns) + 8, 8 * columns)
    gts = np.zeros(shape, np.int32)
    objects = []
    for label in range(1, count + 1):
        row, col = 8 * ((label - 1) // columns) + 2, 8 * ((label - 1) % columns) + 2
        gts[row : row + 4, col : col + 4] = label
        predicted = np.zeros(shape, bool)
        predicted[row : row + 5, col : col + 5] = True
        box = (row - 0.5, col - 0.25, row + 4.5, col + 4.75)
        name = "cell" if label % 2 else "debris"
        objects.append(
            CaseObject(label, name, 1 + (label + 1) % 2, box, predicted, label % 3 == 0, 0.5 + label / 1e4)
        )
    imgs = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    case = Case(
        imgs,
        gts,
        (0.5, 0.25),
        tuple(objects),
        source=Provenance("cells", "/data/a.b/my cells.tif", (7, None, None), dtype="uint16"),
        contrast=ContrastRecord("ct-soft", "window", more={"window": (-160.0, 240.0)}),
        field="whole",
        model=ModelRecord("lite-medsam", "e" * 64, "d" * 64),
        group="patient 1",
        unit="mm",
    )
    if depth is not None:
        case = _volume(case, depth)
    return replace(case, **changes)


def _volume(case: Case, depth: int) -> Case:
    """All slices but the last alike; the last is empty."""

    def stacked(mask: np.ndarray) -> np.ndarray:
        volume = np.repeat(mask[None], depth, axis=0)
        volume[-1] = 0
        return volume

    objects = []
    for item in case.objects:
        assert item.predicted is not None
        objects.append(replace(item, predicted=stacked(item.predicted)))
    imgs = np.repeat(case.imgs[None, ..., 0], depth, axis=0)
    return replace(
        case, imgs=imgs, gts=stacked(case.gts), spacing=(2.0, *case.spacing), objects=tuple(objects)
    )


@pytest.fixture
def make_case() -> Callable[..., Case]:
    return build_case


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.endswith(".lock")}


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """The bytes of every file in a folder, the lock aside."""
    return files_of
