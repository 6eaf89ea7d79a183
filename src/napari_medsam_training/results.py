"""From raw folders to the report in one command; what is done already is not done again.

    python training/results.py DATA -o OUT [--only NAME ...] [--images N] [--epochs N] [--docs docs/results]

DATA: folders NAME/images and NAME/masks, as training/configs/sets.toml names them. In OUT: a dataset and a split for
each set, the pool of the internal sets' training cases, two decoders fitted on it (training/configs/ours.toml and
paper.toml), a U-Net for each set, and the report. To repeat a step delete what it made. --docs receives the report
without pictures, since images of most sets may not be passed on.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.split import read_split, sides_of
from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.events import Event, Trained
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.train import train
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam_training import report
from napari_medsam_training.baselines import read_config, train_on
from napari_medsam_training.command import parser_of, status_of
from napari_medsam_training.curate import main as curate_folders
from napari_medsam_training.pool import pool, split_rows, write_split
from napari_medsam_training.tasks import read_comparison
from napari_medsam_training.toml_file import read_settings, read_toml

DECODERS = {"ours": "ours", "paper settings": "paper"}
"""Titles in the tables, and the names of the settings' and decoders' files."""

BASE = "lite-medsam-box"
"""As its authors released it: the decoder shipped with the package has learned from some of the sets."""
RELEASED = {"released": BASE}
RIVALS = {
    "MedSAM ViT-B": "medsam-vit-b",
    "SAM ViT-B": "sam-vit-b",
    "SAM ViT-L": "sam-vit-l",
    "SAM ViT-H": "sam-vit-h",
}
"""Compared where their checkpoints are at hand; see `napari-medsam models`."""


@dataclass(frozen=True)
class RawSet:
    """One set of training/configs/sets.toml."""

    name: str
    modality: str
    target: str
    side: str
    per: str = "label"
    labels: tuple[str, ...] = ()
    group: str | None = None
    least_pixels: float | None = None
    images: int | None = None
    match: str = ""


@dataclass(frozen=True)
class _Sets:
    set: tuple[RawSet, ...]


def read_sets(path: Path, only: Sequence[str] = ()) -> tuple[RawSet, ...]:
    """The sets of a TOML file, all or those named. Raises CaseError when it cannot be read or lacks a name."""
    sets = read_toml(_Sets, path, "training/configs/sets.toml").set
    unknown = set(only) - {one.name for one in sets}
    if unknown:
        raise CaseError(f"{path} has no set {sorted(unknown)[0]!r}. Name sets that it lists.")
    return tuple(one for one in sets if not only or one.name in only)


def curate(raw: RawSet, data: Path, out: Path, most: int | None) -> Path:
    """Make the dataset of a set with training/curate.py. Raises CaseError when that fails."""
    dataset = out / "datasets" / raw.name
    folder = _chosen(raw, data / raw.name, out / "raw" / raw.name, raw.images or most)
    words = [str(folder / "images"), str(folder / "masks"), str(dataset)]
    words += ["--modality", raw.modality, "--target", raw.target, "--per", raw.per, "--quiet"]
    words += ["--labels", *raw.labels] if raw.labels else []
    words += ["--group", raw.group] if raw.group else []
    words += [] if raw.least_pixels is None else ["--least-pixels", str(raw.least_pixels)]
    if curate_folders(words):
        raise CaseError(f"{raw.name}: no case came out of {folder}. The lines above say why.")
    return dataset


def _chosen(raw: RawSet, folder: Path, target: Path, most: int | None) -> Path:
    """The folder itself, or one with copies of some images, spread over the set by name, and their masks."""
    images = sorted(path for path in (folder / "images").glob("*") if re.search(raw.match, path.name))
    if not images:
        raise CaseError(
            f"{folder / 'images'} holds no images. Give the folder of the sets, or leave {raw.name} out."
        )
    if most is None and not raw.match:
        return folder
    shutil.rmtree(target, ignore_errors=True)  # copies of an earlier choice
    count = min(len(images), most or len(images))
    for path in (images[n] for n in np.linspace(0, len(images) - 1, count).round().astype(int)):
        masks = (folder / "masks").glob(f"{path.name.split('.')[0]}.*")
        for source in (path, *masks):
            copy = target / source.parent.name / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    return target


def fit(dataset: Path, table: Path, settings: Path, output: Path, epochs: int | None, seed: int) -> None:
    """Fit a decoder on the pool. Raises CaseError for settings that cannot be read, and what training raises."""
    config = FinetuneConfig.from_json({**read_settings(settings), "seed": seed})
    if epochs is not None:
        config = replace(config, epochs=epochs)
    output.parent.mkdir(parents=True, exist_ok=True)
    request = TrainingRequest(
        dataset, output.stem, base=BASE, current=BASE, config=config, split=table, output=output
    )
    train(request, output.parent / f"{output.stem}.run", _say)


def _say(event: Event) -> None:
    if isinstance(event, Trained) and event.ended:
        found = "" if event.validation is None else f"  validation DSC {event.validation:.3f}"
        print(f"  epoch {event.epoch}/{event.epochs}  loss {event.loss:.3f}{found}", flush=True)


def specialise(
    dataset: Path, table: Path, settings: Path, output: Path, epochs: int | None, seed: int
) -> None:
    """Train a set's U-Net. Raises CaseError."""
    config = replace(read_config(settings), seed=seed)
    if epochs is not None:
        config = replace(config, epochs=epochs)
    cases = CuratedDataset(dataset)
    output.parent.mkdir(parents=True, exist_ok=True)
    train_on(cases, read_split(table, cases.cases), config, output)


def write_comparison(path: Path, sets: Sequence[RawSet], seed: int) -> Path:
    """What the report compares: both decoders, the released model, rivals, and the U-Nets. Returns the file."""
    decoders = {title: f"decoders/{name}.safetensors" for title, name in DECODERS.items()}
    models = {**decoders, **RELEASED, **RIVALS}
    blocks = [f"seed = {seed}", *(_block("model", {"title": k, "source": v}) for k, v in models.items())]
    for raw in sets:
        places = {"dataset": f"datasets/{raw.name}", "split": f"splits/{raw.name}.csv"}
        places["unet"] = f"unets/{raw.name}.safetensors"
        about = {"name": raw.name, "modality": raw.modality, "target": raw.target, "side": raw.side}
        blocks.append(_block("task", {**about, **places}))
    with replacing(path) as stream:
        stream.write(("\n\n".join(blocks) + "\n").encode())
    return path


def _block(kind: str, values: dict[str, str]) -> str:
    """A TOML table; JSON strings are TOML strings."""
    return "\n".join([f"[[{kind}]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])


def _step(what: str, made: Path, work: Callable[[], object]) -> None:
    if made.exists():
        print(f"{what}: there already", flush=True)
        return
    print(f"{what} ...", flush=True)
    began = time.monotonic()
    work()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def run(options: argparse.Namespace) -> None:
    """All steps, one after the other. Raises MedSAMError."""
    out, seed = options.output, options.seed
    sets = read_sets(options.sets, options.only)
    (out / "splits").mkdir(parents=True, exist_ok=True)
    parts = {}
    for raw in sets:
        table, dataset = out / "splits" / f"{raw.name}.csv", out / "datasets" / raw.name

        def divide(raw: RawSet = raw, table: Path = table) -> None:
            made = curate(raw, options.data, out, options.images)
            write_split(table, split_rows(sides_of(CuratedDataset(made), None, seed)))

        _step(f"{raw.name}: cases", table, divide)
        cases = CuratedDataset(dataset)
        parts[raw.name] = (cases, read_split(table, cases.cases))
    internal = {raw.name: parts[raw.name] for raw in sets if raw.side == "internal"}
    pooled, configs = out / "pool" / "split.csv", options.recipes / "configs"
    _step("pool", pooled, lambda: pool(internal, pooled.parent, options.objects, seed))
    for title, name in DECODERS.items():
        decoder, settings = out / "decoders" / f"{name}.safetensors", configs / f"{name}.toml"
        work = partial(fit, pooled.parent, pooled, settings, decoder, options.epochs, seed)
        _step(f"decoder, {title}", decoder, work)
    for raw in sets:
        unet, settings = out / "unets" / f"{raw.name}.safetensors", configs / "unet.toml"
        dataset, table = out / "datasets" / raw.name, out / "splits" / f"{raw.name}.csv"
        _step(
            f"{raw.name}: U-Net",
            unet,
            partial(specialise, dataset, table, settings, unet, options.epochs, seed),
        )
    comparison = write_comparison(out / "comparison.toml", sets, seed)
    read_comparison(comparison)
    began = time.monotonic()
    report.make(comparison, out / "report", f"Decoders on {len(sets)} real sets", public=options.docs)
    print(f"report: {time.monotonic() - began:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None, recipes: Path = Path("training")) -> int:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of the sets")
    add("-o", "--output", type=Path, required=True, metavar="OUT")
    add("--sets", type=Path, default=recipes / "configs" / "sets.toml")
    add("--only", nargs="+", default=(), metavar="NAME", help="some of the sets")
    add("--images", type=int, metavar="N", help="at most so many of each set")
    add("--objects", type=int, default=6, metavar="N", help="of each case that the decoders learn from")
    add("--epochs", type=int, metavar="N", help="of every training; default: as the settings say")
    add("--seed", type=int, default=0)
    add("--docs", type=Path, metavar="FOLDER", help="where a report without pictures goes as well")
    parser.set_defaults(recipes=recipes)
    keep_freed_memory()
    return status_of("results", partial(run, parser.parse_args(arguments)), failed=1)


if __name__ == "__main__":
    sys.exit(main())
