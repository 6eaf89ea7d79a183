"""Clicks: the interactive decoder beside the released one, on the same embeddings, by the usual protocol.

    python benchmarks/clicks.py [--json OUT] [--data DIR] [--objects N] [--sets NAME ...] [--seeds N] [--decoder FILE]

Up to N objects of each set, boxes 0 to 5 % too large, on the field that answers the object's box: the zoom at which a
person works. Masks come from the engine that answers the window too. A simulated person clicks where the mask is most
wrong: in the middle of the largest error with seed 0, at a random place well inside an error with the others. NoC@q:
clicks (without a box, seed 0) until the DSC reaches q, 20 where it never does; the released decoder is given up after
5. "alone": one click and no word of the object's size (`segment.clicks.lone_click`). Sets marked with * were trained
on, so only the others count for the bars.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lib.images import Thing, data_folder, things
from lib.record import Figure, options_of, publish

from napari_medsam import Segmenter, load_model
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.finetune.simulated_clicks import next_click
from napari_medsam.image.field import Field
from napari_medsam.model.local import load_decoder
from napari_medsam.segment.engine import ClickHistory, MaskBefore
from napari_medsam.segment.fields import field_of
from napari_medsam.segment.prompt import Point, Prompt

TRAINED = (
    "mr3d_spinalcord_sct",
    "nuclei_dsb2018",
    "skin_isic",
    "us_breast_busi",
    "us_carotid",
    "xray_lung",
)
MOST_CLICKS = 20
BOX_CLICKS = 5
HARD = 0.9  # an object whose box mask is under this needs correction
GOALS = (0.85, 0.90)
AFTER_BOX, ALONE = (0, 1, 2, 3, 5), (1, 2, 3, 5)

Scores = dict[str, float]
Sets = dict[str, dict[str, list[Scores]]]
"""The rows of each set and decoder."""


@dataclass(frozen=True, eq=False)
class Course:
    """DSC after each answer, and the mean absolute error of the predicted IoU over them."""

    dice: list[float]
    errors: list[float]

    def after(self, clicks: int, first: int) -> float:
        """DSC after so many clicks; what was reached stays reached. first: clicks of the first answer."""
        return self.dice[min(clicks - first, len(self.dice) - 1)]

    def needed(self, goal: float) -> int:
        return next((n for n, dice in enumerate(self.dice, start=1) if dice >= goal), MOST_CLICKS)


def course(segmenter: Segmenter, field: Field, thing: Thing, seed: int, *, boxed: bool, most: int) -> Course:
    """Prompt one object until nothing is wrong or there were `most` clicks."""
    rng = np.random.default_rng([seed, int(thing.box.r0 * 1000)]) if seed else None
    target = thing.mask[field.box.slices]
    size, found = int(thing.mask.sum()), np.zeros(target.shape, bool)
    points: list[Point] = []
    before: ClickHistory = ()
    dice, errors = [], []
    for number in range(most + 1):
        if number or not boxed:
            click = next_click(target, found, rng)
            if click is None or len(points) == most:
                break
            points.append(Point(click.row + field.row, click.col + field.col, click.positive))
        prompt = Prompt(thing.box if boxed else None, tuple(points))
        answer = segmenter.answer(thing.plane, prompt, field=field, masks_before=before)
        before = (*answer.masks_before, MaskBefore(answer.prediction))
        found = answer.prediction.patch.within(field.box)
        both = int((found & target).sum())
        dice.append(2 * both / max(int(found.sum()) + size, 1))
        errors.append(abs(answer.prediction.iou - both / max(int(found.sum()) + size - both, 1)))
        if dice[-1] >= max(GOALS) and len(dice) > BOX_CLICKS:
            break
    return Course(dice, errors)


def scores_of(segmenter: Segmenter, thing: Thing, seeds: int, most: int) -> Iterator[Scores]:
    """One row a seed."""
    needed: dict[str, float] = {}
    field = field_of("auto", thing.box, thing.plane.shape)
    for seed in range(seeds):
        boxed = course(segmenter, field, thing, seed, boxed=True, most=BOX_CLICKS)
        alone = course(segmenter, field, thing, seed, boxed=False, most=BOX_CLICKS if seed else most)
        if not seed:
            needed = {f"NoC@{round(100 * goal)}": float(alone.needed(goal)) for goal in GOALS}
        yield {
            **{f"box+{n}" if n else "box": boxed.after(n, 0) for n in AFTER_BOX},
            **{f"{n} clicks" if n > 1 else "1 click": alone.after(n, 1) for n in ALONE},
            **needed,
            "IoU error": float(np.mean(boxed.errors + alone.errors)),
        }


def lone(segmenter: Segmenter, thing: Thing) -> float:
    """DSC after one click in the middle, nothing known of the object's size."""
    click = next_click(thing.mask, np.zeros_like(thing.mask))
    assert click is not None
    [found] = segmenter.predict_prompts(thing.plane, [Prompt(None, (Point(click.row, click.col),))])
    mask = found.full(thing.plane.shape)
    return 2 * int((mask & thing.mask).sum()) / max(int(mask.sum()) + int(thing.mask.sum()), 1)


def mean(rows: list[Scores], key: str) -> float:
    return float(np.mean([row[key] for row in rows])) if rows else float("nan")


def tables(by_set: Sets) -> str:
    """One Markdown table a model."""
    parts = []
    for role in ("released", "ours"):
        keys = list(next(iter(by_set.values()))[role][0])
        parts += [f"{role}:", "", f"| set | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
        for name, rows in by_set.items():
            star = "*" if name in TRAINED else ""
            cells = [f"{mean(rows[role], key):.{1 if key.startswith('NoC') else 3}f}" for key in keys]
            parts.append(f"| {name}{star} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def figures(by_set: Sets) -> list[Figure]:
    """The bars: over the sets that were not trained on, each set weighing the same."""
    held = {name: rows for name, rows in by_set.items() if name not in TRAINED}
    boxes = [mean(rows["ours"], "box") - mean(rows["released"], "box") for rows in by_set.values()]

    def both(title: str, of: Callable[[str], float], bar: float | None = None) -> list[Figure]:
        released = Figure("the same, released decoder", of("released"), "DSC")
        return [Figure(title, of("ours"), "DSC", bar, at_least=True), released]

    def clicks_to(key: str) -> list[Figure]:
        title = f"clicks to 0.{key[-2:]}, held-out sets"
        roles = {title: "ours", "the same, released decoder": "released"}
        return [Figure(name, over(held, role, key), "clicks") for name, role in roles.items()]

    return [
        *both(
            f"one click, mean over {len(held)} sets held out", lambda role: over(held, role, "1 click"), 0.78
        ),
        *both("three clicks", lambda role: over(held, role, "3 clicks"), 0.85),
        *both("gain of one click after a box under 0.90", lambda role: gain(held, role, "box+1"), 0.04),
        *both("gain of three clicks after it", lambda role: gain(held, role, "box+3"), 0.07),
        Figure("worst change of a set by clicks", worst_change(held), "DSC", 0.0, at_least=True),
        Figure(
            "box alone against the released decoder, mean over all sets",
            float(np.mean(boxes)),
            "DSC",
            -0.005,
            at_least=True,
        ),
        Figure("the same, worst set", min(boxes), "DSC", -0.015, at_least=True),
        Figure("error of the predicted IoU, all sets", over(by_set, "ours", "IoU error"), "", 0.06),
        Figure("the same, released decoder", over(by_set, "released", "IoU error")),
        Figure("one click, nothing known of the size", over(held, "ours", "alone"), "DSC"),
        *clicks_to("NoC@85"),
        *clicks_to("NoC@90"),
    ]


def over(sets: Sets, role: str, key: str) -> float:
    """A decoder's mean over sets."""
    return float(np.mean([mean(rows[role], key) for rows in sets.values()]))


def gain(sets: Sets, role: str, key: str) -> float:
    """What clicks add to box masks under `HARD`, mean over the sets that have such."""
    hard = [[row for row in rows[role] if row["box"] < HARD] for rows in sets.values()]
    return float(np.mean([mean(rows, key) - mean(rows, "box") for rows in hard if rows]))


def worst_change(sets: Sets) -> float:
    """The least that clicks add to a set's mean, over the sets and some numbers of clicks."""
    steps = (("box", "box+1"), ("box", "box+3"), ("1 click", "3 clicks"))
    return min(
        mean(rows["ours"], later) - mean(rows["ours"], sooner)
        for rows in sets.values()
        for sooner, later in steps
    )


def main() -> int:
    parser = options_of(__doc__, data=True)
    parser.add_argument("--objects", type=int, default=12, help="at most so many of each set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--decoder", type=Path, help="another decoder than the one shipped")
    options = parser.parse_args()
    data = data_folder(options.data)
    names = options.sets or sorted(path.parent.name for path in data.glob("*/images"))
    by_set: Sets = {}
    with tempfile.TemporaryDirectory() as folder:
        released = load_model("lite-medsam-box", cache=EmbeddingCache(Path(folder)))
        chosen = options.decoder and load_decoder(released.model, options.decoder)
        ours = Segmenter(chosen or load_model("lite-medsam", cache=None).model, released.cache)
        for name in names:
            began, rows = time.monotonic(), defaultdict(list)
            for thing in things(data / name, options.objects):
                for row in scores_of(released, thing, 1, BOX_CLICKS):
                    rows["released"].append({**row, "alone": lone(released, thing)})
                alone = lone(ours, thing)
                for row in scores_of(ours, thing, options.seeds, MOST_CLICKS):
                    rows["ours"].append({**row, "alone": alone})
            by_set[name] = dict(rows)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(by_set, indent=1))
    note = __doc__.split("\n\n")[2].strip() + "\n\n" + tables(by_set)
    if options.sets or options.decoder:
        print(note)
        print("\n".join(figure.row() for figure in figures(by_set)))
        return 0
    return publish("clicks", "Clicks: the interactive decoder beside the released one", figures(by_set), note)


if __name__ == "__main__":
    sys.exit(main())
