"""DSC and NSD beside google-deepmind's surface-distance and MONAI, on random masks with anisotropic spacing."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.evaluate.metrics import nsd_tolerance

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "metrics_reference.py"


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARK))


def test_the_pairs_hold_what_goes_wrong(reference: dict[str, Any]) -> None:
    pairs = list(reference["random_pairs"](64))
    kinds = Counter((pair.kind, pair.true.ndim) for pair in pairs)
    assert len(kinds) == 2 * len(reference["KINDS"])
    assert {pair.kind for pair in pairs if pair.both_empty} == {"both empty"}
    touching = [pair for pair in pairs if pair.kind == "border"]
    assert all(pair.true.take(end, axis).all() for pair in touching for axis in (0, 1) for end in (0, -1))
    assert all(np.ptp(pair.spacing) > 0 for pair in pairs)
    again = list(reference["random_pairs"](64))
    assert all(np.array_equal(a.predicted, b.predicted) for a, b in zip(pairs, again, strict=True))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # both packages use names that SciPy or torch retire
@pytest.mark.parametrize("package", ["surface-distance", "MONAI"])
def test_scores_are_those_of_the_reference(reference: dict[str, Any], package: str) -> None:
    pairs = list(reference["random_pairs"](96))
    largest = reference["largest_differences"](pairs)[package]
    assert largest.dsc <= 1e-9
    assert largest.nsd <= 1e-6


def test_a_wrong_score_would_be_seen(reference: dict[str, Any]) -> None:
    apart, pairs = reference["_apart"], list(reference["random_pairs"](32))
    some, none = pairs[0], next(pair for pair in pairs if pair.both_empty)
    assert apart(some, 0.5, 0.75) == 0.25
    assert apart(some, 0.5, float("nan")) == float("inf")
    assert apart(none, 0.0, float("nan")) == 1.0


def test_the_tolerance_is_in_millimetres_where_the_spacing_is() -> None:
    assert nsd_tolerance((0.7, 0.7), "mm") == 2.0
    assert nsd_tolerance((0.07, 0.07), "cm", millimetres=1.0) == 0.1
    assert nsd_tolerance((0.2, 0.4), "micrometer") == pytest.approx(0.6)
    assert nsd_tolerance((1.0, 1.0), "pixel", millimetres=9.0, pixels=3.0) == 3.0
