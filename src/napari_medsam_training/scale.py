"""What a corpus costs, computed from what was measured: writes training/SCALE.md from training/scale.json.

    python training/scale.py --measure DATASET STORE   measure here, on real images, and write scale.json
    python training/scale.py [--images 1000000]        compute from scale.json and write SCALE.md, or print

STORE is what embed.py made of DATASET. Another number of images than a million is printed only.

Times are core-seconds: the processor time of all threads together, which other programs on the machine hardly change.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medsam.records import from_json, to_json
from napari_medsam_training.command import parser_of
from napari_medsam_training.pages import rendered

if TYPE_CHECKING:
    from napari_medsam_training.corpus.store import Shard, Stored
    from napari_medsam_training.fit_job import Beginning

RECIPES = Path("training")  # of a checkout, seen from its root
RAW = 256 * 64 * 64 * 2  # bytes of an embedding, float16
SHARD = 32  # cases in a shard, on average: embed.py's default
FEATURES_A_FILE, TARGETS_A_FILE = 16, 64  # corpus/store.py
EPOCHS = 10


@dataclass(frozen=True)
class Inputs:
    """What was measured on a store: counts, bytes, and core-seconds (medians). images: what they are, in words.

    feature_bytes: of an embedding on disk; least and most of a case. target_bytes, table_bytes: of a sample's target
    and of its row in the shard's table. encode_s: of a field. read_s: of a sample, from this machine's disk. learn_s:
    of a sample in a step, forwards, backwards and the optimiser's share of a batch of 64. open_s: of a shard.
    requests: to the file system for a sample. weights: numbers that the processes average in each step.
    embed_command_s, fit_command_s: what a further field costs embed.py, and a further visit fit.py, as a check.
    """

    images: str
    model: str
    machine: str
    cases: int
    shards: int
    fields: int
    samples: int
    feature_bytes: float
    feature_bytes_least: float
    feature_bytes_most: float
    target_bytes: float
    table_bytes: float
    encode_s: float
    read_s: float
    learn_s: float
    open_s: float
    requests: float
    weights: int
    embed_command_s: float
    fit_command_s: float


@dataclass(frozen=True)
class Costs:
    """What so many images cost. Bytes, core-hours, counts."""

    images: int
    fields: int
    samples: int
    encode_hours: float
    raw_bytes: float
    stored_bytes: float
    shards: int
    files: int
    requests_an_epoch: int
    learn_hours: float
    read_hours: float
    open_hours: float
    step_bytes: int


def costs(images: int, known: Inputs, epochs: int = EPOCHS) -> Costs:
    """Scale what was measured to so many images with as many objects each. epochs: of training."""
    fields = round(images * known.fields / known.cases)
    samples = round(images * known.samples / known.cases)
    shards = -(-images // SHARD)
    files = shards * (-(-fields // shards // FEATURES_A_FILE) + -(-samples // shards // TARGETS_A_FILE) + 3)
    stored = fields * known.feature_bytes + samples * (known.target_bytes + known.table_bytes)
    return Costs(
        images=images,
        fields=fields,
        samples=samples,
        encode_hours=fields * known.encode_s / 3600,
        raw_bytes=fields * RAW,
        stored_bytes=stored,
        shards=shards,
        files=files,
        requests_an_epoch=round(samples * known.requests) + shards,  # and the table of each shard
        learn_hours=epochs * samples * known.learn_s / 3600,
        read_hours=epochs * samples * known.read_s / 3600,
        open_hours=shards * known.open_s / 3600,
        step_bytes=known.weights * 4,
    )


# Measuring


def measured(dataset: Path, store: Path, images: str, repeats: int = 8) -> Inputs:
    """Measure on a store of real images with the package's own model. Takes a minute."""
    import numpy as np

    from napari_medsam.model.local import build_model
    from napari_medsam_training.corpus.store import EmbeddingStore
    from napari_medsam_training.fit_job import ModelStart

    about = EmbeddingStore(store).about
    shards = list(EmbeddingStore(store).shards())
    names = list(chain.from_iterable(shard.names for shard in shards))
    each = [size_of(shard.path / "features") / shard.fields for shard in shards]
    fields, samples = sum(shard.fields for shard in shards), len(names)
    model = build_model(about.model, "cpu")
    pixels = np.random.default_rng(0).random((3, model.frame.size, model.frame.size), dtype=np.float32)
    stored = [shard[n] for shard in shards for n in range(len(shard))][:repeats]
    places = [(shard, n) for shard in shards for n in range(len(shard))][:repeats]
    learn, weights = learning(ModelStart().load(about.model), stored)
    commands = of_commands(dataset, about.model)
    return Inputs(
        images=images,
        model=f"{about.model}, {about.precision}",
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        cases=len({name.case for name in names}),
        shards=len(shards),
        fields=fields,
        samples=samples,
        feature_bytes=sum(size_of(shard.path / "features") for shard in shards) / fields,
        feature_bytes_least=min(each),
        feature_bytes_most=max(each),
        target_bytes=sum(size_of(shard.path / "targets") for shard in shards) / samples,
        table_bytes=sum((shard.path / "zarr.json").stat().st_size for shard in shards) / samples,
        encode_s=core_seconds([lambda: model.encode(pixels)] * (repeats + 1)),
        read_s=core_seconds([partial(shard.__getitem__, n) for shard, n in places]),
        learn_s=learn,
        open_s=core_seconds([partial(_opened, shard.path) for shard in shards]),
        requests=requests_of(shards[0]),
        weights=weights,
        embed_command_s=commands[0],
        fit_command_s=commands[1],
    )


def of_commands(dataset: Path, model: str) -> tuple[float, float]:
    """Core-seconds that a further field costs embed.py, and a further visit fit.py: of whole commands on more and on
    less, the difference. What they need to start falls out."""
    from napari_medsam_training.corpus.store import EmbeddingStore

    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        work, times, counts = Path(place), [], []
        stems = sorted(path.stem for path in dataset.glob("*.npz"))
        for name, part in (("less", stems[: len(stems) // 3]), ("more", stems)):
            (work / name).mkdir()
            for path in (dataset / f"{stem}{kind}" for stem in part for kind in (".npz", ".json")):
                shutil.copy(path, work / name)
            store = work / f"{name}-store"
            times.append(command_seconds("embed", work / name, store, "--model", model, "--device", "cpu"))
            counts.append(sum(line.fields for line in EmbeddingStore(store).about.shards))
        embed = (times[1] - times[0]) / (counts[1] - counts[0])
        options = (store, "--batch", 8, "--device", "cpu", "-o")
        less, more = (
            command_seconds("fit", *options, work / f"{visits}.safetensors", "--visits", visits)
            for visits in (16, 64)
        )
    return embed, (more - less) / 48


def command_seconds(recipe: str, *arguments: object) -> float:
    """Processor time of one of the recipes, all its threads and processes together. Not on Windows."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"napari_medsam_training.{recipe}", *map(str, arguments), "--quiet"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=one_thread)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _opened(path: Path) -> list[Any]:
    from napari_medsam_training.corpus.store import Shard

    return list(Shard(path).names)


def requests_of(shard: Shard) -> float:
    """How often a store is asked for one sample of a shard; what an object store would be paid for."""
    from unittest.mock import patch

    from zarr.storage import LocalStore

    with patch.object(LocalStore, "get", autospec=True, side_effect=LocalStore.get) as get:
        for _ in shard:
            pass
    return get.call_count / len(shard)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def core_seconds(calls: list[Callable[[], Any]]) -> float:
    """The median of the calls' processor time, after the first one, which loads and compiles."""
    found = []
    for call in calls:
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found[1:] or found)


def learning(begin: Beginning, stored: Sequence[Stored]) -> tuple[float, int]:
    """Core-seconds of one sample in a batch of 64, and how many numbers learn."""
    import torch

    from napari_medsam.finetune.config import FinetuneConfig
    from napari_medsam.finetune.trained_decoder import TrainedDecoder
    from napari_medsam_training.corpus.stream import SampleAt
    from napari_medsam_training.fit import visit_of

    torch.set_num_threads(1)
    config = FinetuneConfig()
    trained = TrainedDecoder(begin.decoder, begin.frame, config, half=False)
    visits = [visit_of(SampleAt(1, 0, n), one, config, begin.frame, 0.0) for n, one in enumerate(stored)]
    alone, together = (
        core_seconds([partial(trained.step, chosen, 1e-6, "a measurement")] * 4)
        for chosen in (visits[:1], visits)
    )
    sample = (together - alone) / (len(visits) - 1)
    return sample + (alone - sample) / 64, sum(p.numel() for p in trained.learned if p.grad is not None)


# The report


def report(known: Inputs, found: Costs) -> str:
    """SCALE.md as a whole."""
    filters: dict[str, Callable[..., object]] = {
        "thousands": "{:,}".format,
        "round_thousands": "{:,.0f}".format,
        "mega": lambda size: f"{size / 1e6:.3f}",
        "tera": lambda size: f"{size / 1e12:.2f}",
    }
    units = {"raw": RAW, "shard": SHARD, "epochs": EPOCHS}
    files = {"features_a_file": FEATURES_A_FILE, "targets_a_file": TARGETS_A_FILE}
    return rendered("scale.md.j2", filters, known=known, found=found, **units, **files)


def main(arguments: list[str] | None = None, recipes: Path = RECIPES) -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--measure", type=Path, nargs=2, metavar=("DATASET", "STORE"), help="measure and write scale.json"
    )
    parser.add_argument("--of", default="a store", metavar="TEXT", help="what its images are, in words")
    parser.add_argument("--images", type=int, default=1_000_000)
    args = parser.parse_args(arguments)
    inputs = recipes / "scale.json"
    if args.measure is not None:
        found = measured(args.measure[0], args.measure[1], args.of)
        inputs.write_text(to_json(found, indent=1) + "\n", "utf-8")
    known = from_json(Inputs, inputs.read_bytes())
    text = report(known, costs(args.images, known))
    if args.images == 1_000_000:
        (recipes / "SCALE.md").write_text(text, "utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
