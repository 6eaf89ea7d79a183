"""The training and validation cases of several datasets as one dataset, with the table of their sides."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import Split
from napari_medsam.files import replacing


def pool(parts: Mapping[str, tuple[CuratedDataset, Split]], folder: Path, most: int, seed: int = 0) -> Path:
    """Write the pooled dataset and its table `split.csv`, which is returned; test cases are left out.

    parts: datasets and their splits by name; groups get the name in front. most: objects kept of a case, drawn by seed
    and stem, so that a picture of a hundred cells weighs no more than others; of a volume, planes spread over it that
    hold about so many. Classes of one name become one. Raises CaseError when a case cannot be read or written.
    """
    names = sorted({entry.name for dataset, _ in parts.values() for entry in dataset.classes})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    pooled = CuratedDataset(folder, create=True)
    rows = []
    for name, (dataset, split) in parts.items():
        for role, stems in (("train", split.train), ("val", split.val)):
            cases = (_of_pool(dataset.read(stem, predictions=False), stem, name, numbers) for stem in stems)
            chosen = (thinned(case, most, _rng(seed, stem)) for case, stem in zip(cases, stems, strict=True))
            rows += [(path.stem, role) for path in pooled.extend(chosen)]
    return write_split(folder / "split.csv", dict(rows).items())


def thinned(case: Case, most: int, rng: np.random.Generator) -> Case:
    """A case with at most about `most` objects: some of those of a plane, or all on some planes of a volume."""
    if case.gts.ndim == 2:
        labels = np.unique(case.gts[case.gts > 0])
        if len(labels) <= most:
            return case
        kept = rng.permutation(labels)[:most]
        gts = np.where(np.isin(case.gts, kept), case.gts, 0)
    else:
        planes = np.flatnonzero(case.gts.any(axis=(1, 2)))
        a_plane = sum(len(np.unique(case.gts[n])) - 1 for n in planes) / max(len(planes), 1)
        count = max(1, round(most / max(a_plane, 1)))
        if count >= len(planes):
            return case
        gts = np.zeros_like(case.gts)
        chosen = planes[np.linspace(0, len(planes) - 1, count + 2)[1:-1].round().astype(int)]
        gts[chosen] = case.gts[chosen]
    present = set(np.unique(gts).tolist())
    return replace(case, gts=gts, objects=tuple(item for item in case.objects if item.label in present))


def write_split(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """A table of stems and sides, as `curation.split.read_split` reads it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("stem", "side"), *sorted(rows)])
    with replacing(path) as stream:
        stream.write(text.getvalue().encode())
    return path


def split_rows(split: Split) -> Sequence[tuple[str, str]]:
    """The rows of a split, for `write_split`."""
    return [(stem, role) for role, stems in split.roles().items() for stem in stems]


def _of_pool(case: Case, stem: str, name: str, numbers: Mapping[str, int]) -> Case:
    objects = tuple(replace(item, class_id=numbers[item.class_name]) for item in case.objects)
    return replace(case, objects=objects, group=f"{name} {case.group or stem}", created="")


def _rng(seed: int, stem: str) -> np.random.Generator:
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256(f"{seed} {stem}".encode()).digest()[:8], "big")
    )
