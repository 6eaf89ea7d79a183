"""A dataset's embeddings, boxes and targets to a sharded store that training reads.

    python training/embed.py DATASET STORE [--model lite-medsam] [--device auto] [--scheduler ADDRESS | --workers N]

The same command again does what is missing, and nothing twice.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from napari_medsam.curation.folder import scan
from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.records import to_json
from napari_medsam_training.command import parser_of, status_of
from napari_medsam_training.corpus.embed_shard import Choice, EmbedTask, ModelChoice, embed_shard
from napari_medsam_training.corpus.engine import add_options, alone_in, engine
from napari_medsam_training.corpus.shards import cut, shard_name
from napari_medsam_training.corpus.store import VERSION, Shard, ShardLine, StoreAbout, shard_path


def main(arguments: Sequence[str] | None = None, model: Choice | None = None) -> int:
    """Run the command; gives its exit status. model: another one than --model names."""
    args = _parser().parse_args(arguments)
    return status_of("embed", partial(_run, args, model or ModelChoice(args.model, args.device)))


def _run(args: argparse.Namespace, model: Choice) -> int:
    with alone_in(args.store):
        about = embed_dataset(args, model)
    samples, fields, left = (
        sum(getattr(line, name) for line in about.shards) for name in ("samples", "fields", "left_out")
    )
    found = f"{samples} samples on {fields} fields in {len(about.shards)} shards"
    print(f"{args.store}: {found}, {left} cases left out")
    return 0 if samples else 1


def embed_dataset(args: argparse.Namespace, model: Choice) -> StoreAbout:
    """Embed what is not yet embedded, drop what the dataset no longer has, and write store.json; gives that."""
    config = FinetuneConfig(detail=args.detail, views=args.views)
    for stray in (args.store / "shards").glob(".*"):  # of a run that was killed
        shutil.rmtree(stray, ignore_errors=True)
    tasks = list(_tasks(args, model, config))
    names = [task.name for task in tasks]
    todo = [task for task in tasks if not shard_path(args.store, task.name).exists()]
    del tasks
    print(f"{args.store}: {len(names)} shards, {len(names) - len(todo)} of them done already")
    with engine(args.scheduler, args.workers) as run:
        for _ in tqdm(run(embed_shard, todo), total=len(todo), unit="shard", disable=args.quiet):
            pass
    return _finish(args.store, names, config)


def _tasks(args: argparse.Namespace, model: Choice, config: FinetuneConfig) -> Iterator[EmbedTask]:
    found = scan(args.dataset)
    stems = sorted(found.ours | found.published)
    if not stems:
        raise CaseError(f"{args.dataset} holds no cases. Run curate.py, or export some from the window.")
    what = [VERSION, model.identity(), config.detail, config.views]
    dataset, store = str(args.dataset.resolve()), str(args.store.resolve())
    for shard in cut(stems, str, args.shard_size):
        # a case of ours has its content's hash in its name; a published file may change under its name
        stamps = [_stamp(args.dataset / f"{stem}.npz") for stem in shard if stem in found.published]
        yield EmbedTask(dataset, shard, store, shard_name(shard[0], what, shard, stamps), model, config)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _finish(store: Path, names: list[str], config: FinetuneConfig) -> StoreAbout:
    wanted = {f"{name}.zarr" for name in names}
    for path in (store / "shards").iterdir():
        if path.name not in wanted:
            shutil.rmtree(path)
    lines, models = [], set()
    for shard in (Shard(shard_path(store, name)) for name in names):
        models.add((shard.about.model, shard.about.encoder_hash, shard.about.precision))
        lines.append(ShardLine(shard.path.stem, shard.fields, len(shard), len(shard.about.left_out)))
    if len(models) > 1:
        raise CaseError(
            f"{store} holds embeddings of several models or precisions, {sorted(models)}. Give a new folder."
        )
    about = StoreAbout(*models.pop(), config.detail, config.views, tuple(lines))
    with replacing(store / "store.json") as stream:
        stream.write(to_json(about, indent=1).encode() + b"\n")
    return about


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="folder of cases")
    add("store", type=Path, help="folder for the shards; made where it is not there")
    add("--model", default="lite-medsam", metavar="NAME|FILE", help="whose encoder is used")
    add("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    add("--detail", type=int, default=1, help="above 1: large objects field by field")
    add("--views", type=int, default=1, help="turned and mirrored copies of each field, up to 8")
    add_options(parser, "cases")
    return parser


if __name__ == "__main__":
    sys.exit(main())
