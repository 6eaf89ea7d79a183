"""Which images to correct first: those the model is least sure of, or any.

    python benchmarks/what_next.py [--json OUT] [--data DIR] [--sets NAME ...] [--seeds N]

Boxes are drawn on every image of a pool and K of its images are corrected; the decoder is retrained on them and judged
on other images. The K are those with the lowest predicted IoU, those whose mask changes most when the box is moved a
little, or drawn at random (twice a seed). All else is the same: boxes, settings, test images. Masks corrected are also
counted, since what the model is unsure of may hold more objects. From the decoder as its authors released it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from cases import case_of, image_paths
from loop import BASE
from record import Figure, publish
from zero_shot import data_folder

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.evaluate.metrics import box_from_mask, dice_coefficient
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.samples import planes_of
from napari_medsam.finetune.train import train
from napari_medsam.model.decoder_file import read_info
from napari_medsam.model.local import build_model
from napari_medsam.segment.segmenter import Segmenter

SETS = ("ct_kidney_kits19", "us_breast_busi")
CORRECTED = 4
TESTED = 10
DRAWS = 2  # random choices a seed
CONFIG = FinetuneConfig(visits=300, shares=(1.0,))
NOTE = (
    "DSC on test images after retraining on four corrected images, means over seeds. Neither order beats a random "
    "choice on both sets, so the window ranks nothing."
)
ORDERS = {"lowest predicted IoU": "iou", "masks that change with the box": "jitter"}


@dataclass(frozen=True)
class Doubt:
    """Of a case, a mean over its objects: 1 - the predicted IoU, and 1 - the DSC between masks of moved boxes."""

    iou: float
    jitter: float


def doubts(cases: Sequence[tuple[str, Case]], segmenter: Segmenter, seed: int) -> dict[str, Doubt]:
    """How unsure the model is of each case (stem, case), from boxes 0 to 5 % too large, each drawn three times."""
    found = {}
    for stem, case in cases:
        rng = np.random.default_rng([seed, 5])
        trusts, stays = [], []
        for _, plane, labels in planes_of(case, stem):
            for label in np.unique(labels[labels > 0])[:12]:
                boxes = np.stack([box_from_mask(labels == label, rng) for _ in range(3)])
                masks = segmenter.predict(plane, boxes)
                trusts.append(masks[0].iou)
                full = [mask.full(plane.shape) for mask in masks]
                stays.append(mean(dice_coefficient(a, b) for a, b in combinations(full, 2)))
        found[stem] = Doubt(1 - mean(trusts), 1 - mean(stays))
    return found


def rows_of(name: str, data: Path, seed: int, work: Path, cache: EmbeddingCache) -> list[dict[str, Any]]:
    """The DSC on the test images for each choice of training images, and for the decoder as it was."""
    rng = np.random.default_rng([seed, 6])
    paths = image_paths(data, name)
    order = [paths[n] for n in rng.permutation(len(paths))]
    dataset = CuratedDataset(work / f"{name}-{seed}", create=True)
    stems = [path.stem for path in dataset.extend(case_of(name, path) for path in order)]
    test, pool = stems[:TESTED], stems[TESTED:]
    model = build_model(BASE, "cpu")
    cases = [(stem, dataset.read(stem)) for stem in pool]
    doubt = doubts(cases, Segmenter(model, cache), seed)
    choices = [
        (title, sorted(pool, key=lambda stem: getattr(doubt[stem], key), reverse=True)[:CORRECTED])
        for title, key in ORDERS.items()
    ]
    for _ in range(DRAWS):
        choices.append(("random", [pool[n] for n in rng.permutation(len(pool))[:CORRECTED]]))
    objects = {stem: len(case.objects) for stem, case in cases}
    rows = []
    for number, (title, chosen) in enumerate(choices):
        before, after = _retrained(dataset, chosen, test, seed, work / f"{name}-{seed}-{number}", cache)
        row = {"set": name, "seed": seed, "order": title, "before": before}
        rows.append({**row, "after": after, "masks": sum(objects[stem] for stem in chosen)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _retrained(
    dataset: CuratedDataset,
    chosen: Sequence[str],
    test: Sequence[str],
    seed: int,
    folder: Path,
    cache: EmbeddingCache,
) -> tuple[float, float]:
    folder.mkdir()
    table = folder / "split.csv"
    roles = {**dict.fromkeys(chosen, "train"), **dict.fromkeys(test, "test")}
    table.write_text("".join(f"{stem},{role}\n" for stem, role in roles.items()))
    request = TrainingRequest(
        dataset.path,
        "decoder",
        BASE,
        BASE,
        config=replace(CONFIG, seed=seed),
        split=table,
        output=folder / "decoder.safetensors",
    )
    train(request, folder / "run", lambda _: None, cache=cache)
    verdict = read_info(folder / "decoder.safetensors").verdict
    assert verdict is not None
    return verdict.mean["released"].dsc, verdict.mean["new"].dsc


def figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Means over seeds, and what each order gains over the random one of the same seed."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        found.append(Figure(f"{name}: before", mean(row["before"] for row in of_set), "DSC"))
        for title in (*ORDERS, "random"):
            mine = [row for row in of_set if row["order"] == title]
            masks = mean(row["masks"] for row in mine)
            found.append(
                Figure(f"{name}: {title}, {masks:.0f} masks", mean(row["after"] for row in mine), "DSC")
            )
        for title in ORDERS:
            gains = [
                row["after"]
                - mean(r["after"] for r in of_set if r["order"] == "random" and r["seed"] == row["seed"])
                for row in of_set
                if row["order"] == title
            ]
            found.append(Figure(f"{name}: {title}, seeds better than random", sum(g > 0 for g in gains)))
            found.append(Figure(f"{name}: {title}, over random", mean(gains), "DSC"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cache = EmbeddingCache(work / "embeddings")
        for name in options.sets:
            for seed in range(options.seeds):
                rows += rows_of(name, data_folder(options.data), seed, work, cache)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return publish("what_next", "Which images to correct first", figures(rows), NOTE)


if __name__ == "__main__":
    sys.exit(main())
