"""A store of embeddings to a decoder, on one process or many, under Lightning Fabric.

    python training/fit.py STORE -o DECODER (--epochs N | --visits N) [--split TABLE.csv] [--batch 64] [--seed 0]
                           [--devices 1] [--num-nodes 1] [--strategy auto|ddp] [--resume RUN]

Only the mask decoder learns: from boxes, and from clicks where it knew them before. A run keeps its checkpoints beside
the decoder, in DECODER's name and `.run`; after a stop the same command with --resume and that folder goes on, on any
number of processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.utils.data import DataLoader
from tqdm import tqdm

from napari_medsam.errors import ModelError
from napari_medsam.files import TEMPORARY_SUFFIX
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.samples import moved_box
from napari_medsam.finetune.simulated_user import draw_plans, habits_with
from napari_medsam.finetune.trained_decoder import TrainedDecoder, Visit
from napari_medsam.geometry import Box
from napari_medsam.image.field import Field, Frame
from napari_medsam.model.decoder_file import SUFFIX, CurvePoint, DecoderInfo, write_decoder
from napari_medsam.model.networks.weights import decoder_state, state_hash
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam_training.command import parser_of, status_of
from napari_medsam_training.corpus.engine import alone_in
from napari_medsam_training.corpus.fit_state import Kept, drop, keep, write_losses
from napari_medsam_training.corpus.store import Stored
from napari_medsam_training.corpus.stream import Place, SampleAt, SampleReader, Shuffle, moved_on
from napari_medsam_training.fit_job import FitJob, ModelStart, Start, prepared


class Fit:
    """The steps of a job on this process: `run` yields the loss of each, the same on all processes."""

    def __init__(self, fabric: Fabric, job: FitJob, readers: int) -> None:
        self._fabric, self._job, self._readers = fabric, job, readers
        self.losses: list[tuple[int, float]] = []
        self.place, self.seconds = Place(), 0.0
        self.trained = TrainedDecoder(
            job.start.decoder,
            job.start.frame,
            job.config,
            str(fabric.device),
            knows_clicks=job.start.knows_clicks,
            half=job.half,
            all_sum=partial(fabric.all_reduce, reduce_op="sum") if fabric.world_size > 1 else None,
        )
        if job.kept is not None:
            self.trained.decoder.load_state_dict(job.kept.decoder)
            self.trained.optimiser.load_state_dict(dict(job.kept.optimiser))
            self.losses, self.place, self.seconds = list(job.kept.losses), job.kept.place, job.kept.seconds

    def run(self) -> Iterator[float]:
        """One loss a step: the mean over its samples. Raises ModelError for one that is not finite, CaseError for a
        damaged shard."""
        job, batch = self._job, self._job.config.batch
        last = time.monotonic()
        for own in self._own_samples():
            visits = [
                visit_of(at, stored, job.config, job.start.frame, self.trained.clicks) for at, stored in own
            ]
            number = len(self.losses)
            rate = job.config.rate_at(number, job.steps)
            loss = self.trained.step(visits, rate, f"step {number + 1}").mean
            self.losses.append((self.place.epoch, loss))
            self.place = moved_on(self.place, len(job.corpus), batch, job.visits)
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            yield loss

    def kept(self) -> Kept:
        """The state after the last step."""
        optimiser = self.trained.optimiser.state_dict()
        return Kept(self.place, self.losses, self.trained.state(), optimiser, self.seconds)

    def _own_samples(self) -> Iterable[list[tuple[SampleAt, Stored]]]:
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


def visit_of(at: SampleAt, stored: Stored, config: FinetuneConfig, frame: Frame, clicks: float) -> Visit:
    """A visit as somebody might make it; box and plan depend on the seed, the epoch and the sample alone.

    clicks: share of the visits that have clicks.
    """
    field, box = Field(*stored.field), Box(*(float(edge) for edge in stored.box))
    moves = _rng(config, at, 1).uniform(*(config.jitter_px or config.jitter), size=4)
    drawn = moved_box(box, field, moves, pixels=config.jitter_px is not None)
    [plan] = draw_plans(1, habits_with(clicks), _rng(config, at, 3))
    return Visit(stored.features, stored.target, field.to_frame(drawn.array()[None], frame)[0], plan)


def _rng(config: FinetuneConfig, at: SampleAt, purpose: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, at.epoch, purpose, at.shard, at.sample])


def main(arguments: Sequence[str] | None = None, start: Start | None = None) -> int:
    """Run the command; gives its exit status. start: another source of models than the package's."""
    args = _parser().parse_args(arguments)
    keep_freed_memory()
    return status_of("fit", partial(fit, args, start or ModelStart()))


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


def _fabric(args: argparse.Namespace) -> Fabric:
    alone = args.devices * args.num_nodes == 1 and args.strategy == "auto"
    # A process that is gone is noticed at once where its connection breaks, else after this time.
    ddp = DDPStrategy(timeout=timedelta(minutes=10))
    return Fabric(
        accelerator=args.device,
        devices=args.devices,
        num_nodes=args.num_nodes,
        strategy="auto" if alone else ddp,
    )


def _train(fabric: Fabric, job: FitJob, args: argparse.Namespace) -> None:
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


def _file(job: FitJob, now: Fit, world: int) -> None:
    state = now.trained.state()
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
        prompts=now.trained.prompts,
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


def _translated(error: RuntimeError, fabric: Fabric, job: FitJob) -> ModelError:
    said = str(error).strip().split("\n")[0]
    if fabric.world_size == 1:
        return ModelError(f"{job.start.base} failed while training ({said}). Go on with --resume {job.run}.")
    return ModelError(
        f"Process {fabric.global_rank} of {fabric.world_size} cannot go on ({said}). If no other message tells why, "
        f"another process has ended. Give the same command with --resume {job.run}."
    )


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
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
