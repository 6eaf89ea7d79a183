"""Boxes and masks of a plane for tests with layers, in a window or without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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


class Hands:
    """What a script does to shapes and labels, on a desk with a window or without one.

    A desk has `viewer`, `shapes`, `labels`, `painted` (ids, as their masks arrive) and `wait(condition)`.
    """

    viewer: Any
    shapes: Any
    labels: Any
    painted: list[int]
    wait: Any

    def move_box(self, object_id: int, box: BoxEdges, *, wait: bool = True) -> None:
        """Give an object's shape other corners, as a script would, and wait for its new mask."""
        row = list(self.shapes.features["object"]).index(object_id)
        before = len(self.painted)
        data = list(self.shapes.data)
        data[row] = corners(box, self.shapes.ndim)
        self.shapes.data = data
        if wait:
            self.wait(lambda: object_id in self.painted[before:])

    def delete_box(self, object_id: int) -> None:
        row = list(self.shapes.features["object"]).index(object_id)
        self.shapes.selected_data = {row}
        self.shapes.remove_selected()

    def paint(self, label: int, rows: slice, cols: slice) -> None:
        """Change a rectangle of the labels on screen as one undoable step, as the brush does."""
        grid = np.mgrid[rows, cols].reshape(2, -1)
        fixed = [np.full(grid.shape[1], int(step)) for step in self.viewer.dims.current_step[:-2]]
        self.labels.data_setitem((*fixed[len(fixed) + 2 - self.labels.ndim :], *grid), label)
