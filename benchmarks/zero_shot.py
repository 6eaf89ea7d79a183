"""Zero-shot accuracy with boxes, beside the published call sequence on the same boxes.

    python benchmarks/zero_shot.py [--json OUT] [--data DIR] [--sets NAME ...] [--images N]

For each object a box 0 to 5 % too large on each side; mean Dice coefficient (DSC) of `Segmenter.segment`
(field "whole") and of the published LiteMedSAM inference, in one run. Bars: overall mean DSC at least 0.93,
and within 0.005 of the published sequence. Exit status 1 when one is missed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lib.images import data_folder, objects_of, read_pairs
from lib.published import PublishedSequence
from lib.record import Figure, options_of, publish

from napari_medsam import Segmenter, load_model
from napari_medsam.evaluate.metrics import box_from_mask, dice_coefficient

SETS = ("polyp_kvasir", "xray_lung", "us_carotid")
MIN_DSC, MAX_DIFFERENCE = 0.93, 0.005
SEED = 2024


@dataclass(frozen=True)
class Result:
    """Mean DSC of one image set, ours and the published sequence's."""

    name: str
    images: int
    objects: int
    ours: float
    published: float

    @property
    def difference(self) -> float:
        return self.ours - self.published


def compare(folder: Path, segmenter: Segmenter, published: PublishedSequence, limit: int | None) -> Result:
    """Score both on one image set, with the same boxes."""
    rng = np.random.default_rng(SEED)
    ours: list[float] = []
    theirs: list[float] = []
    count = 0
    for image, mask in read_pairs(folder, limit):
        count += 1
        objects = objects_of(mask)
        if not objects:
            continue
        boxes = np.stack([box_from_mask(item, rng) for item in objects])
        ours += map(dice_coefficient, segmenter.segment(image, boxes, field="whole"), objects)
        theirs += map(dice_coefficient, published.segment(image, boxes), objects)
    return Result(folder.name, count, len(ours), float(np.mean(ours)), float(np.mean(theirs)))


def overall(results: list[Result]) -> Result:
    """Every set weighs the same."""
    return Result(
        "mean of sets",
        sum(result.images for result in results),
        sum(result.objects for result in results),
        float(np.mean([result.ours for result in results])),
        float(np.mean([result.published for result in results])),
    )


def report(rows: list[Result]) -> str:
    """A Markdown table."""
    lines = ["| set | images | objects | DSC | published | difference |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.name} | {r.images} | {r.objects} | {r.ours:.4f} | {r.published:.4f} | {r.difference:+.4f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = options_of(__doc__, data=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--images", type=int, help="at most so many images of each set")
    parser.add_argument("--backend", default="auto", help="encoder backend of ours")
    options = parser.parse_args(arguments)
    data = data_folder(options.data)
    missing = [name for name in options.sets if not (data / name / "images").is_dir()]
    if missing:
        parser.error(f"no image set {', '.join(missing)} in {data}; name their folder with --data")
    segmenter = load_model("lite-medsam-box", cache=None, backend=options.backend)
    published = PublishedSequence()
    results: list[Result] = []
    for name in options.sets:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(compare(data / name, segmenter, published, options.images))
    total = overall(results)
    note = f'Boxes 0 to 5 % too large, seed {SEED}, encoder in {segmenter.model.precision}, field "whole".'
    return publish(
        "zero_shot",
        "Zero-shot DSC beside the published code",
        figures([*results, total]),
        note,
        copy=options.json,
    )


def figures(rows: list[Result]) -> list[Figure]:
    """The DSC of every set, ours and the published sequence's, and how far they are apart; the last row is the mean."""
    found = []
    for row in rows:
        what = f"{row.name}, {row.objects} objects"
        found += [
            Figure(f"{what}: published sequence", row.published, "DSC"),
            Figure(f"{what}: ours", row.ours, "DSC", MIN_DSC if row is rows[-1] else None, at_least=True),
            Figure(f"{what}: distance of the two", abs(row.difference), "DSC", MAX_DIFFERENCE),
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
