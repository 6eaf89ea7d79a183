"""Whether a new decoder has earned its place: held-out objects, the decoder in use beside it, box by box."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.curation.case import Case
from napari_medsam.evaluate.metrics import (
    box_from_mask,
    dice_coefficient,
    normalized_surface_distance,
    nsd_tolerance,
)
from napari_medsam.evaluate.verdict import CaseScores, ClassScores, Difference, Scores, Verdict
from napari_medsam.finetune.samples import planes_of
from napari_medsam.geometry import Box, bbox_of
from napari_medsam.image.plane import Plane
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.segmenter import Segmenter

if TYPE_CHECKING:
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.model.local import MedSAM

LEAST_OBJECTS = 5
"""Fewer held-out objects say nothing."""

LEAST_UNITS = 4
"""With fewer cases or groups than this the interval is drawn over objects."""

MOST_OBJECTS_A_CASE = 30
TOLERANCE = 2.0
"""Of the NSD, in millimetres where the spacing is, else in pixels of the plane's mean spacing."""

LEVEL = 0.95
DRAWS = 4000

_Row = tuple[str, int, Scores | None, Scores | None, Scores | None]


@dataclass(frozen=True, eq=False)
class Judged:
    """One held-out object: where it is, and for each decoder its prediction, DSC and NSD.

    number: the slice of a volume that the plane is, 0 in a 2D case.
    """

    case: str
    group: str
    plane: Plane
    label: int
    class_name: str
    box: npt.NDArray[np.float64]
    truth: npt.NDArray[np.bool_]
    origin: tuple[int, int]
    scores: Mapping[str, Scores]
    predictions: Mapping[str, Prediction]
    number: int = 0

    def full_truth(self) -> npt.NDArray[np.bool_]:
        """The true mask on the whole plane: (H, W) bool."""
        full = np.zeros(self.plane.shape, dtype=bool)
        row, col = self.origin
        full[row : row + self.truth.shape[0], col : col + self.truth.shape[1]] = self.truth
        return full


@dataclass(frozen=True, eq=False)
class Candidate:
    """A decoder to be judged: what it is called, its model, and the detail it predicts with."""

    name: str
    model: MedSAM
    detail: int = 1


def judge(
    candidates: Mapping[str, Candidate],
    cases: Sequence[tuple[str, Case]],
    cache: EmbeddingCache | None,
    seed: int = 0,
    stopping: Callable[[], bool] = lambda: False,
    every: bool = False,
) -> Iterator[Judged]:
    """Predict each object of the cases (stem, case) with each candidate, from the same boxes, 0 to 5 % too large.

    Of a case with many objects `MOST_OBJECTS_A_CASE` are drawn, unless it is to be every one. Boxes and draws depend
    on seed, case and label only. Stops early once stopping(). Raises what embedding and decoding raise.
    """
    segmenters = {role: Segmenter(one.model, cache) for role, one in candidates.items()}
    for stem, case in cases:
        classes = {item.label: item.class_name for item in case.objects}
        for number, plane, labels, label in _drawn_objects(stem, case, seed, every):
            if stopping():
                return
            mask = labels == label
            box = box_from_mask(mask, _rng(seed, stem, label, plane.name))
            found = {
                role: segmenters[role].predict(plane, box[None], detail=one.detail)[0]
                for role, one in candidates.items()
            }
            tolerance = nsd_tolerance(plane.spacing, case.unit, TOLERANCE, TOLERANCE)
            scores = {role: _score(prediction, mask, plane, tolerance) for role, prediction in found.items()}
            bbox = bbox_of(mask) or Box(0, 0, 0, 0)
            yield Judged(
                case=stem,
                group=case.group or stem,
                plane=plane,
                label=label,
                class_name=classes.get(label, "unknown"),
                box=box,
                truth=mask[bbox.slices],
                origin=bbox.corner,
                scores=scores,
                predictions=found,
                number=number,
            )


def objects_to_judge(cases: Sequence[tuple[str, Case]]) -> int:
    """How many objects `judge` yields for cases; an object of a volume counts once for each slice it is in."""
    return sum(min(_count(case.gts), MOST_OBJECTS_A_CASE) for _, case in cases)


def verdict_of(judged: Sequence[Judged], names: Mapping[str, str], by: str, seed: int = 0) -> Verdict:
    """The verdict on objects that are scored for the roles "new", "current" and maybe "released".

    names: what each role is called. by: how the cases were divided. Adopted is only what beats the current decoder's
    DSC beyond a paired bootstrap interval of 95 % over groups (over objects where there are fewer than 4). Source:
    Efron and Tibshirani, 1993, chapter 13.
    """
    verdict = Verdict(
        new=names["new"],
        current=names["current"],
        released=names.get("released", ""),
        by=by,
        objects=len(judged),
        cases=len({one.case for one in judged}),
        tolerance=TOLERANCE,
        decision="unsure",
        reason=f"Cannot tell: {len(judged)} held-out objects, and under {LEAST_OBJECTS} say nothing. "
        "Correct more images, then train again.",
        mean=_means(judged),
        classes=tuple(ClassScores(*row) for row in _rows(judged, "class_name")),
        table=tuple(sorted((CaseScores(*row) for row in _rows(judged, "case")), key=_new_dsc)),
    )
    if len(judged) < LEAST_OBJECTS:
        return verdict
    found = _interval(judged, seed)
    decision = "adopt" if found.low > 0 else "keep"
    reason = _reason(decision, found, names["current"], len(judged))
    return replace(verdict, difference=found, decision=decision, reason=reason)


def worst_first(judged: Sequence[Judged]) -> list[Judged]:
    """Objects in the order of the new decoder's DSC, the worst of each case before the second worst of any."""
    seen: dict[str, int] = {}
    ordered = []
    for one in sorted(judged, key=lambda one: one.scores["new"].dsc):
        rank = seen[one.case] = seen.get(one.case, -1) + 1
        ordered.append((rank, one))
    return [one for _, one in sorted(ordered, key=lambda pair: pair[0])]


def _count(labels: npt.NDArray[np.integer]) -> int:
    planes = labels[None] if labels.ndim == 2 else labels
    return sum(int(np.count_nonzero(np.unique(plane))) for plane in planes)


def _drawn_objects(
    stem: str, case: Case, seed: int, every: bool
) -> Iterator[tuple[int, Plane, npt.NDArray[np.integer], int]]:
    found = [
        (number, plane, labels, int(label))
        for number, plane, labels in planes_of(case, stem)
        for label in np.unique(labels[labels > 0])
    ]
    if not every and len(found) > MOST_OBJECTS_A_CASE:
        chosen = _rng(seed, stem, 0, "draw").permutation(len(found))[:MOST_OBJECTS_A_CASE]
        found = [found[n] for n in sorted(chosen.tolist())]
    yield from found


def _score(prediction: Prediction, mask: npt.NDArray[np.bool_], plane: Plane, tolerance: float) -> Scores:
    full = prediction.full(plane.shape)
    distance = normalized_surface_distance(full, mask, plane.spacing, tolerance)
    return Scores(dice_coefficient(full, mask), distance)


def _interval(judged: Sequence[Judged], seed: int) -> Difference:
    """The bootstrap interval is drawn over groups, over cases where they are few, else over objects."""
    gains = np.array([one.scores["new"].dsc - one.scores["current"].dsc for one in judged])
    groups = np.unique([one.group for one in judged], return_inverse=True)[1]
    units = "groups"
    if len(np.unique(groups)) < LEAST_UNITS:
        cases = np.unique([one.case for one in judged], return_inverse=True)[1]
        groups, units = (
            (cases, "cases") if len(np.unique(cases)) >= LEAST_UNITS else (np.arange(len(gains)), "objects")
        )
    sums = np.bincount(groups, gains)
    counts = np.bincount(groups)
    draws = np.random.default_rng([seed, 3]).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(gains.mean()), float(low), float(high), LEVEL, units)


def _reason(decision: str, found: Difference, current: str, objects: int) -> str:
    change = f"DSC {found.dsc:+.3f} ({found.low:+.3f} to {found.high:+.3f}) on {objects} held-out objects"
    if decision == "adopt":
        return f"Better than {current} beyond doubt: {change}."
    if found.high < 0:
        return f"Worse than {current}: {change}."
    return f"Not better than {current} beyond doubt: {change}."


def _means(judged: Sequence[Judged]) -> dict[str, Scores]:
    def mean(role: str, metric: str) -> float:
        return float(np.mean([getattr(one.scores[role], metric) for one in judged]))

    return {
        role: Scores(mean(role, "dsc"), mean(role, "nsd")) for role in (judged[0].scores if judged else ())
    }


def _new_dsc(row: CaseScores) -> float:
    return 0.0 if row.new is None else row.new.dsc


def _rows(judged: Sequence[Judged], attribute: str) -> Iterator[_Row]:
    """For each value of an attribute: itself, its number of objects, and their means as new, current, released."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(getattr(one, attribute), []).append(one)
    for name, members in sorted(groups.items()):
        means = _means(members)
        yield name, len(members), means.get("new"), means.get("current"), means.get("released")


def _rng(seed: int, stem: str, label: int, more: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {stem} {label} {more}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
