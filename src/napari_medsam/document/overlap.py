"""Which pixels an object may take when its mask meets other objects."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Policy = Literal["later", "never", "corrected"]
"""later: the newer mask wins. never: no other object is overwritten. corrected: corrected ones are kept."""


def paste(
    region: npt.NDArray[np.integer],
    mask: npt.NDArray[np.bool_],
    label: int,
    policy: Policy,
    protected: Collection[int] = (),
) -> npt.NDArray[np.bool_]:
    """Decide which pixels of a label region become `label`.

    region: (h, w) integer labels, 0 is background. mask: (h, w) bool, the object's mask on that region.
    protected: labels of corrected objects, kept under the policy "corrected"; `label` itself is never
    protected from its own mask. Returns (h, w) bool; nothing is written. Raises ValueError when the shapes
    differ or the policy is unknown.
    """
    if region.shape != mask.shape:
        raise ValueError(f"the mask's shape {mask.shape} is not the region's {region.shape}")
    if policy not in get_args(Policy):
        raise ValueError(f"unknown overlap policy {policy!r}; choose one of {get_args(Policy)}")
    if policy == "never":
        mine: npt.NDArray[np.bool_] = mask & ((region == 0) | (region == label))
        return mine
    kept = [other for other in protected if other != label] if policy == "corrected" else []
    free: npt.NDArray[np.bool_] = mask & ~np.isin(region, kept)
    return free
