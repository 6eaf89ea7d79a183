"""What the user's brush did to the labels, out of what napari tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Stroke:
    """One undoable edit by the user: the pixels it changed, one array an axis, and their labels before and after.

    A pixel may be listed more than once: the latest change of it first, the earliest last.
    """

    indices: tuple[npt.NDArray[np.intp], ...]
    old: npt.NDArray[np.integer]
    new: npt.NDArray[np.integer]


def stroke_of(atoms: Sequence[Any]) -> Stroke:
    """Bring the entries of a napari paint event (at least one) to one stroke."""
    touched = [_touched(atom) for atom in reversed(atoms)]
    indices = tuple(
        np.concatenate(parts) for parts in zip(*(stroke.indices for stroke in touched), strict=True)
    )
    old = np.concatenate([stroke.old for stroke in touched])
    return Stroke(indices, old, np.concatenate([stroke.new for stroke in touched]))


def _touched(atom: Any) -> Stroke:
    """Bring one entry of a napari paint event to a stroke; it lists masks or plain indices."""
    if not hasattr(atom, "slice_key"):
        indices = tuple(np.asarray(axis).ravel() for axis in atom[0])
        old, new = (np.broadcast_to(np.asarray(values).ravel(), indices[0].shape) for values in atom[1:3])
        return Stroke(indices, old, new)
    starts = [int(part.start) for part in atom.slice_key]
    shape = tuple(int(part.stop) - int(part.start) for part in atom.slice_key)
    mask = np.ones(shape, dtype=bool) if atom.mask is None else np.asarray(atom.mask).reshape(shape)
    inside = np.nonzero(mask)
    old = np.asarray(atom.old_values)
    old = old.reshape(shape)[inside] if atom.mask is None else old
    indices = tuple(axis + start for axis, start in zip(inside, starts, strict=True))
    return Stroke(indices, old, np.full(old.shape, atom.new_value, dtype=np.int64))
