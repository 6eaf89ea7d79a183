"""A store of embeddings to a decoder, on one process or many, under Lightning Fabric.

    python training/fit.py STORE -o DECODER (--epochs N | --visits N) [--split TABLE.csv] [--batch 64] [--seed 0]
                           [--devices 1] [--num-nodes 1] [--strategy auto|ddp] [--resume RUN]

Only the mask decoder learns, from boxes, and from clicks where it knows them (`clicks` in the config). A run keeps its
checkpoints beside the decoder, in DECODER's name and `.run`; after a stop the same command with --resume and that
folder goes on, on any number of processes.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from napari_medsam.errors import CaseError, CheckpointError, MedSAMError, ModelError
from napari_medsam.files import TEMPORARY_SUFFIX
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.samples import moved_box
from napari_medsam.finetune.simulated_user import Plan, draw_plans, habits_of
from napari_medsam.finetune.step import VisitLoss, not_finite, set_rate
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, Frame
from napari_medsam.model.decoder_file import SUFFIX, CurvePoint, DecoderInfo, write_decoder
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.networks.weights import build_decoder, decoder_state, state_hash
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam_training.corpus.engine import alone_in
from napari_medsam_training.corpus.fit_state import CHECKPOINT, Kept, drop, keep, kept_in, write_losses
from napari_medsam_training.corpus.store import Stored
from napari_medsam_training.corpus.stream import (
    Corpus,
    Place,
    SampleReader,
    Shuffle,
    Visit,
    moved_on,
    open_corpus,
    steps_of,
)


@dataclass(frozen=True, eq=False)
class Beginning:
    """What training begins with: a decoder, the frame of its boxes, the hash of the encoder it belongs to, and whether
    it has learned clicks."""

    base: str
    decoder: SamDecoder
    frame: Frame
    encoder_hash: str
    clicks: bool = False


class Start(Protocol):
    """A model by name, loaded where it is trained."""

    def load(self, name: str) -> Beginning: ...


class ModelStart:
    """One of the package's models, or a checkpoint file."""

    def load(self, name: str) -> Beginning:
        from napari_medsam.model.local import build_model

        model = build_model(name, "cpu", backend="torch")
        if model.spec.decoder is not None:
            raise ModelError(
                f"{name} is a decoder, and training starts with a model's own. Give {model.spec.base}."
            )
        decoder = build_decoder(model.decoder_state(), model.frame.size, name)
        return Beginning(name, decoder, model.frame, model.encoder_hash, "point" in model.prompts)


@dataclass(frozen=True, eq=False)
class Job:
    """A run, checked before any process is started. visits: samples shown in all. kept: where to go on."""

    corpus: Corpus
    start: Beginning
    config: FinetuneConfig
    visits: int
    output: Path
    run: Path
    settings: dict[str, Any]
    kept: Kept | None

    @property
    def steps(self) -> int:
        return steps_of(len(self.corpus), self.config.batch, self.visits)


class TrainedDecoder(nn.Module):
    """A visit to a sample, as the processes go through it together: the mean of its losses, ()."""

    def __init__(self, decoder: SamDecoder, frame: Frame, config: FinetuneConfig) -> None:
        super().__init__()
        self.decoder, self.visits = decoder, VisitLoss(decoder, frame, config)

    def forward(self, features: Tensor, *shown: Any) -> Tensor:
        """features: (C, h, w) float32. shown: see `shown_sample`."""
        return self.visits.answers(features, *shown).mean()


class Fit:
    """The steps of a job on this process: `run` yields the place and the loss of each, the same on all processes."""

    def __init__(self, fabric: Fabric, job: Job, readers: int) -> None:
        self._fabric, self._job = fabric, job
        self._readers = readers
        self.losses: list[tuple[int, float]] = []
        self.place, self.seconds = Place(), 0.0
        config = job.config
        self._decoder = job.start.decoder.train()
        trained = TrainedDecoder(self._decoder, job.start.frame, config)
        if job.kept is not None:
            self._decoder.load_state_dict(job.kept.decoder)
        adamw = torch.optim.AdamW(trained.visits.learned, lr=config.rate, weight_decay=config.weight_decay)
        self._trained, self._optimiser = fabric.setup(trained, adamw)
        if job.kept is not None:
            self._optimiser.load_state_dict(job.kept.optimiser)
            self.losses, self.place, self.seconds = list(job.kept.losses), job.kept.place, job.kept.seconds

    def run(self) -> Iterator[float]:
        """One loss a step: the mean over its samples. Raises ModelError for one that is not finite, CaseError for a
        damaged shard."""
        job, batch = self._job, self._job.config.batch
        last = time.monotonic()
        for own in self._own_samples():
            loss = self._step(own, job.config.rate_at(len(self.losses), job.steps))
            self.losses.append((self.place.epoch, loss))
            self.place = moved_on(self.place, len(job.corpus), batch, job.visits)
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            yield loss

    def kept(self) -> Kept:
        """The state after the last step."""
        return Kept(self.place, self.losses, self.decoder_state(), self._optimiser.state_dict(), self.seconds)

    def decoder_state(self) -> dict[str, Tensor]:
        """Copies of the decoder's weights as they are now, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self._decoder.state_dict().items()}

    def _own_samples(self) -> Iterator[list[tuple[Visit, Stored]]]:
        job, fabric = self._job, self._fabric
        shuffle = Shuffle(job.corpus.chosen, job.config.seed)
        own = shuffle.batches(job.config.batch, job.visits, self.place, fabric.global_rank, fabric.world_size)
        reader: Any = SampleReader(job.corpus.path, job.corpus.names)
        # zarr reads on threads, which do not survive a fork
        context = "spawn" if self._readers else None
        return iter(
            DataLoader(
                reader,
                batch_sampler=own,
                collate_fn=list,
                num_workers=self._readers,
                multiprocessing_context=context,
            )
        )

    def _step(self, own: list[tuple[Visit, Stored]], rate: float) -> float:
        """One step of the optimiser; what DDP averages over the processes is the gradient of the step's mean loss."""
        fabric = self._fabric
        set_rate(self._optimiser, rate)
        self._optimiser.zero_grad()
        total = torch.zeros((), device=fabric.device)
        for left, (visit, stored) in zip(range(len(own) - 1, -1, -1), own, strict=True):
            with fabric.no_backward_sync(self._trained, enabled=left > 0):
                shown = shown_sample(visit, stored, self._job.config, self._job.start.frame)
                features = fabric.to_device(torch.from_numpy(stored.features.astype(np.float32)))
                loss = self._trained(features, *shown) * (visit.share * fabric.world_size)
                fabric.backward(loss)
            total += loss.detach()
        mean = float(fabric.all_reduce(total, reduce_op="mean"))
        norm = fabric.clip_gradients(
            self._trained, self._optimiser, max_norm=self._job.config.clip, error_if_nonfinite=False
        )
        if not math.isfinite(mean) or norm is None or not norm.isfinite():
            raise not_finite(mean, f"step {len(self.losses) + 1}", rate, "a --learning-rate")
        self._optimiser.step()
        return mean


def shown_sample(
    visit: Visit, stored: Stored, config: FinetuneConfig, frame: Frame
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], Plan]:
    """What `TrainedDecoder` takes beside the features: target (h, w), box (4,) in frame pixels, plan of the visit."""
    box = drawn_box(visit, stored, config)
    in_frame: npt.NDArray[np.float32] = Field(*stored.field).to_frame(box.array()[None], frame)[0]
    rng = np.random.default_rng([config.seed, visit.epoch, 3, visit.shard, visit.sample])
    [plan] = draw_plans(1, habits_of(config.clicks), rng)
    return stored.target, in_frame, plan


def drawn_box(visit: Visit, stored: Stored, config: FinetuneConfig) -> Box:
    """The box of a visit as somebody might draw it; it depends on the seed, the epoch and the sample alone."""
    rng = np.random.default_rng([config.seed, visit.epoch, 1, visit.shard, visit.sample])
    moves = rng.uniform(*(config.jitter_px or config.jitter), size=4)
    box = Box(*(float(edge) for edge in stored.box))
    return moved_box(box, Field(*stored.field), moves, pixels=config.jitter_px is not None)


def main(arguments: Sequence[str] | None = None, start: Start | None = None) -> int:
    """Run the command; gives its exit status. start: another source of models than the package's."""
    args = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        fit(args, start or ModelStart())
    except (MedSAMError, ValueError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def fit(args: argparse.Namespace, start: Start) -> None:
    """Check the job, start the processes, train, and write the decoder."""
    job = prepared(args, start)
    fabric = _fabric(args)
    fabric.launch()
    with ExitStack() as held:
        if fabric.is_global_zero:
            held.enter_context(alone_in(job.run))
            for stray in job.run.glob(f".*{TEMPORARY_SUFFIX}"):  # of a process that was killed
                stray.unlink()
            about = f"{len(job.corpus)} samples, {job.steps} steps of {job.config.batch}, {fabric.world_size} processes"
            print(f"{job.corpus.path}: {about}. After a stop go on with --resume {job.run}", flush=True)
        try:
            _train(fabric, job, args)
        except RuntimeError as error:
            raise _translated(error, fabric, job) from error


def prepared(args: argparse.Namespace, start: Start) -> Job:
    """All that can be wrong is found here, before other processes are started. Raises MedSAMError, OSError."""
    world = args.devices * args.num_nodes
    if min(args.devices, args.num_nodes, args.keep_every) < 1 or args.readers < 0:
        raise CaseError("--devices, --num-nodes and --keep-every are whole numbers from 1, --readers from 0.")
    if args.batch < world:
        raise CaseError(
            f"A batch of {args.batch} leaves some of {world} processes idle. Give --batch {world} or more."
        )
    if args.output.suffix != SUFFIX:
        raise CheckpointError(f"The decoder's file is {args.output}. Give it a name that ends with {SUFFIX}.")
    corpus = open_corpus(args.store, args.split)
    begin = start.load(args.model or corpus.model)
    config = _config(args, corpus, begin.clicks)
    if begin.encoder_hash != corpus.encoder_hash:
        raise ModelError(
            f"{args.store} was embedded by {corpus.model}, whose encoder is {corpus.encoder_hash[:12]}, and that of "
            f"{begin.base} is {begin.encoder_hash[:12]}. Give the same --model to embed.py and here."
        )
    visits = args.visits or config.epochs_for(len(corpus)) * len(corpus)
    weights = state_hash(decoder_state(begin.decoder.state_dict()))
    settings = {"samples": corpus.content, "model": weights, "visits": visits, "precision": args.precision}
    settings |= {f"setting {name}": value for name, value in config.to_json().items()}
    run = args.resume or args.output.with_suffix(".run")
    kept = kept_in(run, settings) if args.resume else None
    if args.resume is None and (run / CHECKPOINT).exists():
        raise CaseError(
            f"{run} holds a run that has not ended. Go on with --resume {run}, or remove that folder."
        )
    return Job(corpus, begin, config, visits, args.output, run, settings, kept)


def _config(args: argparse.Namespace, corpus: Corpus, clicks: bool) -> FinetuneConfig:
    given: dict[str, Any] = {}
    if args.config is not None:
        try:
            given = tomllib.loads(args.config.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CaseError(
                f"The settings {args.config} cannot be read ({error}). Give a TOML file."
            ) from error
    given |= {"epochs": args.epochs, "batch": args.batch, "seed": args.seed, "shares": (1.0,)}
    given |= {"detail": corpus.detail, "views": corpus.views, "precision": "float32"}
    if not clicks or corpus.detail > 1:  # what a decoder has not learned, or forgets anyway
        given["clicks"] = 0.0
    config = FinetuneConfig.from_json(given | ({"visits": args.visits} if args.visits is not None else {}))
    return config if args.learning_rate is None else replace(config, learning_rate=args.learning_rate)


def _fabric(args: argparse.Namespace) -> Fabric:
    alone = args.devices * args.num_nodes == 1 and args.strategy == "auto"
    # Some weights take no part in a box's mask: DDP is told to look for them. A process that is gone is noticed at
    # once where its connection breaks, else after this time.
    ddp = DDPStrategy(find_unused_parameters=True, timeout=timedelta(minutes=10))
    return Fabric(
        accelerator=args.device,
        devices=args.devices,
        num_nodes=args.num_nodes,
        strategy="auto" if alone else ddp,
        precision=args.precision,
    )


def _train(fabric: Fabric, job: Job, args: argparse.Namespace) -> None:
    now = Fit(fabric, job, args.readers)
    first = fabric.is_global_zero
    bar = tqdm(initial=len(now.losses), total=job.steps, unit="step", disable=args.quiet or not first)
    with bar:
        for loss in now.run():
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if first and len(now.losses) % args.keep_every == 0:
                keep(job.run, now.kept(), job.settings)
    if first:
        _file(job, now, fabric.world_size)
    fabric.barrier()


def _file(job: Job, now: Fit, world: int) -> None:
    state = now.decoder_state()
    write_losses(job.run, now.losses)
    info = DecoderInfo(
        name=job.output.stem,
        base=job.start.base,
        encoder_hash=job.corpus.encoder_hash,
        decoder_hash=state_hash(decoder_state(state)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        detail=job.config.detail,
        dataset=str(job.corpus.path),
        dataset_id=job.corpus.content,
        config=job.config.to_json() | {"visits": job.visits},
        curve=tuple(_curve(now.losses)),
        prompts=("box", "point") if job.config.clicks else ("box",),
    )
    write_decoder(job.output, state, info)
    drop(job.run)
    rate = len(now.losses) / max(now.seconds, 1e-9)
    print(
        f"{job.output}: {len(now.losses)} steps on {world} processes, {rate:.3g} steps a second", flush=True
    )


def _curve(losses: Sequence[tuple[int, float]]) -> Iterator[CurvePoint]:
    """The mean loss of each epoch, as decoder files keep it."""
    by_epoch: dict[int, list[float]] = {}
    for epoch, loss in losses:
        by_epoch.setdefault(epoch, []).append(loss)
    for epoch, found in by_epoch.items():
        yield CurvePoint(epoch, float(np.mean(found)))


def _translated(error: RuntimeError, fabric: Fabric, job: Job) -> ModelError:
    said = str(error).strip().split("\n")[0]
    if fabric.world_size == 1:
        return ModelError(f"{job.start.base} failed while training ({said}). Go on with --resume {job.run}.")
    return ModelError(
        f"Process {fabric.global_rank} of {fabric.world_size} cannot go on ({said}). If no other message tells why, "
        f"another process has ended. Give the same command with --resume {job.run}."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("store", type=Path, help="folder that embed.py wrote")
    add("-o", "--output", type=Path, required=True, metavar="DECODER", help=f"file for the decoder, {SUFFIX}")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--epochs", type=int, help="passes over the samples")
    length.add_argument("--visits", type=int, help="samples shown in all; may end within an epoch")
    add("--split", type=Path, metavar="TABLE", help="CSV of case and side: only those on `train` are taken")
    add("--batch", type=int, default=64, help="samples in a step, of all processes together")
    add("--seed", type=int, default=0, help="of the order and the boxes")
    add("--config", type=Path, metavar="TOML", help="further settings, as in training/configs")
    add("--learning-rate", type=float, help="at the peak, in place of the config's")
    add("--model", metavar="NAME|FILE", help="whose decoder is trained; the store's when not given")
    add("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    add("--devices", type=int, default=1, help="processes on each node, each with a device of its own")
    add("--num-nodes", type=int, default=1)
    add(
        "--strategy",
        default="auto",
        choices=["auto", "ddp"],
        help="auto: ddp where there are several processes",
    )
    add("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    add(
        "--readers", type=int, default=0, help="processes that read ahead for each device; 0 reads in between"
    )
    add("--keep-every", type=int, default=100, metavar="STEPS", help="steps from checkpoint to checkpoint")
    add("--resume", type=Path, metavar="RUN", help="folder of a run that was stopped")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
