"""Raw images and masks to a dataset of cases, with a split and a report.

    python training/curate.py IMAGES MASKS DATASET --modality CT --target liver [--group REGEX|TABLE.csv]
        [--labels NAME=VALUES ...] [--per label|instance|component] [--split TABLE.csv] [--scheduler ADDRESS]

The same command again does what is missing, and nothing twice. training/README.md tells what it takes and makes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from napari_medsam.curation.manifest import MANIFEST_NAME, read_manifest
from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.image.contrast import Contrast
from napari_medsam_training.command import parser_of, status_of
from napari_medsam_training.corpus.curate_shard import curate_shard
from napari_medsam_training.corpus.engine import add_options, alone_in, engine
from napari_medsam_training.corpus.finish import Tally, finish
from napari_medsam_training.corpus.job import Job, Settings
from napari_medsam_training.corpus.left_out import Left
from napari_medsam_training.corpus.objects import ClassRule, ObjectRules, parse_classes
from napari_medsam_training.corpus.page import write_page
from napari_medsam_training.corpus.pairing import Pair, apart, grouped, pair_up
from napari_medsam_training.corpus.plan import FOLDER, plan
from napari_medsam_training.corpus.sides import read_sides, read_table
from napari_medsam_training.corpus.sources import find_sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status: 0, 1 where no case came out, 2 where it could not begin."""
    return status_of("curate", partial(_run, _parser().parse_args(arguments)))


def _run(args: argparse.Namespace) -> int:
    with alone_in(args.dataset / FOLDER):
        tallies = curate(args)
    for tally in tallies:
        kinds = ", ".join(f"{count} {kind}" for kind, count in tally.left.most_common())
        print(f"{tally.name}: {tally.cases} cases, {tally.planes} planes; left out: {kinds or 'nothing'}")
    print(f"report: {args.dataset / FOLDER / 'report.html'}")
    return 0 if any(tally.cases for tally in tallies) else 1


def curate(args: argparse.Namespace) -> list[Tally]:
    """Pair, curate what is not yet curated, and bring split, tables, report and manifest up to date."""
    pairs, left = _pairs(args)
    name = args.name or re.sub(r"[^A-Za-z0-9]+", "-", f"{args.modality}-{args.target}").strip("-").lower()
    sides = None if args.split is None else read_sides(args.split)
    folder, tasks, count = plan(_job(args), name, pairs, left, args.seed, sides, args.shard_size)
    del pairs, left
    print(f"{folder.path.name}: {count} shards, {count - len(tasks)} of them done already")
    with engine(args.scheduler, args.workers) as run:
        for _ in tqdm(run(curate_shard, tasks), total=len(tasks), unit="shard", disable=args.quiet):
            pass
    del tasks
    tallies = finish(args.dataset)
    write_page(args.dataset, tallies)
    return tallies


def _pairs(args: argparse.Namespace) -> tuple[list[Pair], list[Left]]:
    for folder in (args.images, args.masks):
        if not folder.is_dir():
            raise CaseError(f"{folder} is not a folder. Give the folders of the images and of the masks.")
    images, left = find_sources(args.images)
    if args.images.resolve() == args.masks.resolve():
        images, masks = apart(images)
    else:
        masks, more = find_sources(args.masks)
        left += [replace(entry, of="masks") for entry in more]
    pairs, more = pair_up(images, masks, _regex(args.pair))
    left += more
    table = args.group is not None and args.group.lower().endswith(".csv")
    groups = read_table(Path(args.group), "group") if table else None
    pairs, more = grouped(pairs, None if table else _regex(args.group), groups)
    return pairs, left + more


def _job(args: argparse.Namespace) -> Job:
    chosen = parse_classes(args.labels, args.target)
    if args.per == "instance" and len(chosen) > 1:
        raise ValueError("--per instance takes each value as an object of its own: give at most one class.")
    ids = _class_ids(args.dataset, [name for name, _ in chosen])
    rules = tuple(ClassRule(ids[name], name, values) for name, values in chosen)
    settings = Settings(
        args.modality,
        args.target,
        ObjectRules(rules, args.per, args.least_pixels),
        None if args.contrast is None else Contrast.parse(args.contrast),
        tuple(args.percentiles),
        {"auto": None, "z": 0, "row": 1, "col": 2}[args.axis],
        None if args.channels is None else tuple(args.channels),
    )
    images, masks, dataset = (str(folder.resolve()) for folder in (args.images, args.masks, args.dataset))
    return Job(images, masks, dataset, settings)


def _class_ids(dataset: Path, names: Sequence[str]) -> dict[str, int]:
    """Ids of classes that stay the same for the life of a dataset; new names get new ones."""
    path = dataset / FOLDER / "classes.json"
    if path.exists():
        known: dict[str, int] = json.loads(path.read_text("utf-8"))
    elif (dataset / MANIFEST_NAME).exists():
        known = {entry.name: entry.id for entry in read_manifest(dataset / MANIFEST_NAME).classes}
    else:
        known = {}
    for name in names:
        known.setdefault(name, max(known.values(), default=0) + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(json.dumps(known, indent=1, sort_keys=True).encode() + b"\n")
    return known


def _regex(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression ({error}).") from error


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("images", type=Path, help="folder of images, with any folders below it")
    add("masks", type=Path, help="folder of masks; the same one where names tell them apart (_mask, _seg)")
    add("dataset", type=Path, help="folder of cases; made where it is not there, added to where it is")
    add(
        "--modality",
        required=True,
        help="CT and MR have a contrast of their own; any other word is taken as it is",
    )
    add("--target", required=True, help="what is outlined; the class where --labels names none")
    add("--name", help="of this run, where one dataset has several of a modality and target")
    add("--pair", metavar="REGEX", help="images and masks belong together whose paths it matches equally")
    add(
        "--group",
        metavar="REGEX|TABLE.csv",
        help="what of a path is the patient or movie; or a table: stem,group",
    )
    add("--labels", nargs="+", default=[], metavar="[NAME=]VALUES", help="mask values to take: tumour=2,3")
    add("--per", choices=["label", "instance", "component"], default="label", help="what is one object")
    add("--split", type=Path, metavar="TABLE.csv", help="sides by hand: image stem, train|val|test")
    add("--seed", type=int, default=0, help="of the split by group")
    add("--contrast", help="instead of the modality's: auto, ct, ct-soft, ct-lung, ct-bone or LO,HI")
    add("--percentiles", type=float, nargs=2, default=(0.5, 99.5), metavar=("LOW", "HIGH"))
    add(
        "--least-pixels",
        type=float,
        default=100.0,
        help="in the 256 frame, of an object on a plane; 0 keeps all",
    )
    add(
        "--axis",
        choices=["auto", "z", "row", "col"],
        default="auto",
        help="volumes: across planes; coarsest spacing",
    )
    add("--channels", type=int, nargs="+", help="of images that have several; one for volumes")
    add_options(parser, "pairs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
