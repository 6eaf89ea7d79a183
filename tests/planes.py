"""Boxes and masks of a plane for tests with layers, in a window or without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

BoxEdges = Sequence[float]


@contextmanager
def named(case: str) -> Iterator[None]:
    """Say in a failure which of the cases of one test it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"case: {case}")
        raise


def corners(box: BoxEdges, ndim: int = 2, at: Sequence[float] = ()) -> np.ndarray:
    """The corners (4, ndim) of plane edges in napari's data coordinates: pixel i has its centre at i."""
    r0, c0, r1, c1 = (edge - 0.5 for edge in box)
    flat = np.array([[r0, c0], [r0, c1], [r1, c1], [r1, c0]])
    lead = np.zeros((4, ndim - 2)) + np.asarray(at if len(at) else [0.0] * (ndim - 2))
    return np.concatenate([lead, flat], axis=1)


def filled(shape: tuple[int, ...], box: BoxEdges) -> np.ndarray:
    """A mask (H, W) that fills a box with whole edges."""
    mask = np.zeros(shape, bool)
    r0, c0, r1, c1 = (int(edge) for edge in box)
    mask[r0:r1, c0:c1] = True
    return mask
