"""The held-out cases of a task, segmented by each model and measured: rows for the tables, and pictures.

A row of `cases` is one class in one case: all its objects taken together, which is what a network without boxes can be
compared on. A row of `lesions` is one object, for models that are given its box. Volumes are scored as volumes. Boxes
are 0 to 5 % too large and the same for every model; a class that is not in a case is not scored there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.pixels import seen_plane
from napari_medsam.curation.split import sides_of
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import CaseError
from napari_medsam.evaluate.measure import Burden, measure
from napari_medsam.evaluate.metrics import dice_coefficient, normalized_surface_distance, nsd_tolerance
from napari_medsam.finetune.pictures import TRUTH, around, contoured
from napari_medsam.finetune.verdict import TOLERANCE, Candidate, Judged, judge
from napari_medsam.geometry import bbox_of
from napari_medsam_training.baselines import Specialist, class_map, load
from napari_medsam_training.tasks import UNET, Comparison, Task

Row = Mapping[str, object]
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
"""Of the models' contours, in their order: Okabe and Ito's, which people with any colour vision tell apart."""


@dataclass(frozen=True, eq=False)
class ScoredCase:
    """What one case gives. picture: by class, (h, w, 3) uint8 with contours, reference white, models in `COLOURS`."""

    cases: tuple[Row, ...]
    lesions: tuple[Row, ...]
    pictures: Mapping[str, np.ndarray]


def score_task(
    task: Task, comparison: Comparison, candidates: Mapping[str, Candidate], cache: EmbeddingCache | None
) -> Iterator[ScoredCase]:
    """Score the test cases of a task. candidates: by the models' titles.

    Raises CaseError when there are no test cases, and what reading, embedding and decoding raise.
    """
    dataset = CuratedDataset(task.dataset)
    stems = sides_of(dataset, task.split, comparison.seed).test
    if not stems:
        raise CaseError(
            f"{task.dataset}: no case is on the test side. Give more groups, or a table with --split."
        )
    specialist = None if task.unet is None else load(task.unet)
    several = len(dataset.classes) > 1
    for stem in stems:
        case = dataset.read(stem, predictions=False)
        judged = list(judge(candidates, [(stem, case)], cache, comparison.seed, every=True))
        yield score_case(task, stem, case, judged, tuple(candidates), specialist, several)


def score_case(
    task: Task,
    stem: str,
    case: Case,
    judged: Sequence[Judged],
    titles: Sequence[str],
    specialist: Specialist | None,
    several: bool,
) -> ScoredCase:
    """Score one case. judged: its objects, all of them. several: whether the task has several classes."""
    names = sorted({one.class_name for one in judged})
    about = {
        "task": task.name,
        "modality": task.modality,
        "side": task.side,
        "case": stem,
        "group": case.group or stem,
    }
    lesions: list[Row] = []
    maps = {title: np.zeros((len(names), *case.gts.shape), bool) for title in titles}
    for label in dict.fromkeys(one.label for one in judged):
        parts = [one for one in judged if one.label == label]
        class_name = parts[0].class_name
        truth = case.gts == label
        known = _burden(truth, case)
        for title in titles:
            mask = _mask(parts, title, case)
            maps[title][names.index(class_name)] |= mask
            scores = {**_scores(mask, truth, case), **_sizes(_burden(mask, case), known)}
            lesions.append({**about, "class": class_name, "label": label, "model": title, **scores})
    if specialist is not None:
        found = specialist.segment_case(case)
        numbers = {name: n for n, name in enumerate(specialist.classes, start=1)}
        maps[UNET] = (
            np.stack([found == numbers.get(name, 255) for name in names]) if names else found[None][:0]
        )
    truths = class_map(case, names)
    cases, pictures = [], {}
    for place, name in enumerate(names):
        truth = truths == place + 1
        target = f"{task.target}: {name}" if several else task.target
        for title, masks in maps.items():
            row = {
                **about,
                "class": name,
                "target": target,
                "model": title,
                "unit": case.unit,
                "is_volume": case.gts.ndim == 3,
            }
            cases.append({**row, **_scores(masks[place], truth, case), **_amounts(masks[place], truth, case)})
        pictures[name] = _picture(case, stem, truth, [masks[place] for masks in maps.values()])
    return ScoredCase(tuple(cases), tuple(lesions), pictures)


def _mask(parts: Sequence[Judged], title: str, case: Case) -> np.ndarray:
    """A model's mask of one object on the case's grid."""
    if case.gts.ndim == 2:
        return parts[0].predictions[title].full(parts[0].plane.shape)
    mask = np.zeros(case.gts.shape, bool)
    for one in parts:
        mask[one.number] = one.predictions[title].full(one.plane.shape)
    return mask


def _scores(mask: np.ndarray, truth: np.ndarray, case: Case) -> dict[str, float]:
    tolerance = nsd_tolerance(case.spacing, case.unit, TOLERANCE, TOLERANCE)
    return {
        "dsc": dice_coefficient(mask, truth),
        "nsd": normalized_surface_distance(mask, truth, case.spacing, tolerance),
    }


def _burden(mask: np.ndarray, case: Case) -> Burden:
    return measure(mask, case.spacing, case.unit)


def _sizes(found: Burden, known: Burden) -> dict[str, float]:
    """Diameters and the area of one object, a missed one as 0, beside the reference's."""
    sizes: dict[str, float] = {}
    for prefix, burden in (("", found), ("reference_", known)):
        lesion = burden.lesions[0] if burden.lesions else None
        for name in ("longest", "perpendicular", "area"):
            sizes[prefix + name] = 0.0 if lesion is None else getattr(lesion, name)
    return sizes


def _amounts(mask: np.ndarray, truth: np.ndarray, case: Case) -> dict[str, float]:
    """How much of a class is in a case: mm3 of a volume, mm2 of a plane (pixels without a clinical spacing)."""
    amounts = {}
    for name, burden in (("amount", _burden(mask, case)), ("reference_amount", _burden(truth, case))):
        amounts[name] = burden.area if burden.volume is None else burden.volume
    return amounts


def _picture(case: Case, stem: str, truth: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """The plane with most of the reference, around it, with its contour and the models'."""
    number = 0 if truth.ndim == 2 else int(truth.sum(axis=(1, 2)).argmax())
    shown = [mask if mask.ndim == 2 else mask[number] for mask in (truth, *masks)]
    window = around(bbox_of(shown[0]) or (0, 0, *shown[0].shape), shown[0].shape)
    return contoured(
        seen_plane(case, number, stem), window, list(zip(shown, (TRUTH, *COLOURS), strict=False))
    )
