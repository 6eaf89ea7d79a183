"""How well measured sizes agree with reference ones: Bland and Altman's limits, and Pearson's correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_PAIRS = 3
"""Two pairs always lie on a line, so fewer have no correlation."""

LIMITS = 1.96
"""Standard deviations on either side of the bias between which 95 % of normally distributed differences lie."""


@dataclass(frozen=True)
class Agreement:
    """bias: mean of measured minus reference; low, high: the limits of agreement; correlation: Pearson's r.

    Not a number stands where there is too little to tell: limits under two pairs, the correlation under three or where
    one side does not vary.
    """

    count: int
    bias: float
    low: float
    high: float
    correlation: float


def agreement(measured: npt.ArrayLike, reference: npt.ArrayLike) -> Agreement:
    """Compare pairs of sizes (n,), in one unit, which is that of the bias and limits too.

    No pairs give not a number throughout. Raises ValueError when the shapes differ or a value is not finite.
    Source: Bland and Altman, Lancet 327 (1986).
    """
    found, true = np.asarray(measured, np.float64), np.asarray(reference, np.float64)
    if found.shape != true.shape or found.ndim != 1:
        raise ValueError(f"sizes of the shapes {found.shape} and {true.shape}: give two lists of one length")
    if not (np.isfinite(found).all() and np.isfinite(true).all()):
        raise ValueError("a size is not finite: leave out what could not be measured")
    if len(found) == 0:
        return Agreement(0, math.nan, math.nan, math.nan, math.nan)
    differences = found - true
    bias = float(differences.mean())
    room = LIMITS * float(differences.std(ddof=1)) if len(found) > 1 else math.nan
    varies = len(found) >= LEAST_PAIRS and np.ptp(found) > 0 and np.ptp(true) > 0
    correlation = float(np.corrcoef(found, true)[0, 1]) if varies else math.nan
    return Agreement(len(found), bias, bias - room, bias + room, correlation)
