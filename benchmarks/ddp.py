"""Training under Lightning Fabric: two processes against one at the same global batch, and after a kill.

    python benchmarks/ddp.py [--steps 50] [--batch 4]

A store of discs embedded by a fixed random mixture of their pixels, a decoder of 64 channels with new weights, and
`training/fit.py` as anybody runs it, DDP over gloo on the CPU. Takes a few minutes. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

SIDE, CHANNELS, SAMPLES, SHARDS = 64, 64, 60, 5
KILLED = "RANK_TO_KILL"


# A store, and the decoder that is trained on it


def write_store(store: Path) -> None:
    """Samples of 64 x 64: features (64, 16, 16) float16 and the disc as a target; the same, always."""
    from napari_medsam.records import to_json
    from napari_medsam_training.corpus.store import (
        SampleName,
        ShardAbout,
        ShardLine,
        ShardWriter,
        StoreAbout,
        shard_path,
    )

    rng = np.random.default_rng(0)
    mixture = rng.normal(size=(CHANNELS, 16))
    rows, cols = np.mgrid[:SIDE, :SIDE] + 0.5
    lines, about = [], ShardAbout("discs", "0" * 64, "float32")
    for shard in range(SHARDS):
        name = f"discs-{shard}"
        with ShardWriter(shard_path(store, name), about) as writer:
            for number in range(SAMPLES // SHARDS):
                (r, c), radius = rng.uniform(24, 40, 2), rng.uniform(9, 18)
                inside = np.hypot(rows - r, cols - c) < radius
                pixels = rng.normal(0, 0.3, inside.shape) + inside
                patches = pixels.reshape(16, 4, 16, 4).transpose(1, 3, 0, 2).reshape(16, 256)
                features = (mixture @ patches).reshape(CHANNELS, 16, 16).astype(np.float16)
                field = writer.field((0, 0, SIDE, SIDE), features)
                case = SampleName(f"disc {shard} {number}", 0, 1, "disc", f"disc {shard} {number}")
                box = (r - radius, c - radius, r + radius, c + radius)
                writer.sample(case, field, box, (255 * inside).astype(np.uint8))
        lines.append(ShardLine(name, SAMPLES // SHARDS, SAMPLES // SHARDS, 0))
    whole = StoreAbout(about.model, about.encoder_hash, about.precision, 1, 1, tuple(lines))
    (store / "store.json").write_text(to_json(whole))


class NewDecoder:
    """Weights as a new network has them, the same, always."""

    def load(self, name: str) -> object:
        import torch

        from napari_medsam.image.field import Frame
        from napari_medsam.model.networks.decoder import MaskDecoder, SamDecoder
        from napari_medsam_training.fit_job import Beginning

        torch.manual_seed(0)
        decoder = SamDecoder(SIDE, MaskDecoder(CHANNELS, mlp_dim=256), CHANNELS)
        with torch.no_grad():
            for kind, value in decoder.state_dict().items():
                if (
                    kind.endswith(("matrix", "embed.weight", "token.weight", "tokens.weight"))
                    or "point" in kind
                ):
                    value.normal_()
        return Beginning(name, decoder, Frame(SIDE), "0" * 64)


# The command, in processes of its own


def fit_command(store: Path, output: Path, steps: int, batch: int, *more: str) -> list[str]:
    length = ["--visits", str(steps_to_visits(steps, batch)), "--batch", str(batch)]
    return [
        sys.executable,
        __file__,
        "--fit",
        str(store),
        "-o",
        str(output),
        "--device",
        "cpu",
        "--quiet",
        *length,
        *more,
    ]


def steps_to_visits(steps: int, batch: int) -> int:
    """An epoch's last step may be smaller than a batch."""
    whole, rest = divmod(steps, -(-SAMPLES // batch))
    return whole * SAMPLES + rest * batch


@dataclass(frozen=True)
class Ended:
    losses: list[float]
    status: int
    seconds: float
    said: str


def run(command: list[str], run_folder: Path, **environment: str) -> Ended:
    start = time.perf_counter()
    known = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, env=known, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    with (run_folder / "losses.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return Ended(losses, done.returncode, time.perf_counter() - start, done.stderr)


def killed_after(step: int) -> None:
    """Let this process end by SIGKILL once it has done that step."""
    from napari_medsam_training.fit import Fit

    steps = Fit.run

    def until(self: Fit) -> Iterator[float]:
        for loss in steps(self):
            yield loss
            if len(self.losses) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    Fit.run = until  # type: ignore[method-assign]


def as_fit() -> int:
    from napari_medsam_training import fit

    if os.environ.get(KILLED, "").split(":")[0] == os.environ.get("LOCAL_RANK", "0"):
        killed_after(int(os.environ[KILLED].split(":")[1]))
    return fit.main(sys.argv[2:], NewDecoder())


def compared(work: Path, steps: int, batch: int) -> list[object]:
    from lib.record import Figure

    store, two = work / "store", ("--devices", "2", "--strategy", "ddp")
    store.mkdir()
    write_store(store)

    def ended(name: str, *more: str, **environment: str) -> Ended:
        output = work / f"{name}.safetensors"
        return run(fit_command(store, output, steps, batch, *more), work / f"{name}.run", **environment)

    alone, both = ended("one"), ended("two", *two)
    assert len(alone.losses) == len(both.losses) == steps, alone.said + both.said
    figures = [
        Figure("one process: loss of the first step", alone.losses[0]),
        Figure(f"one process: loss of step {steps}", alone.losses[-1]),
        Figure("2 processes: largest difference of a step's loss", difference(alone, both), "", 1e-4),
    ]
    for rank in (1, 0):
        name, place = f"killed-{rank}", work / f"killed-{rank}.run"
        cut = ended(name, *two, "--keep-every", "7", **{KILLED: f"{rank}:{steps // 2}"})
        assert cut.status != 0, cut.said
        told = "--resume" in cut.said
        again = ended(name, *two, "--resume", str(place))
        assert again.status == 0, again.said
        figures += [
            Figure(
                f"process {rank} killed: the other's error tells how to go on (1 yes)",
                float(told),
                "",
                1,
                at_least=True,
            ),
            Figure(f"process {rank} killed: steps repeated", steps // 2 - len(cut.losses), "", 7),
            Figure(
                f"process {rank} killed and resumed: largest difference to an uninterrupted run",
                difference(both, again),
                "",
                1e-4,
            ),
        ]
    return figures


def difference(one: Ended, other: Ended) -> float:
    return float(np.abs(np.subtract(one.losses, other.losses)).max())


def main() -> int:
    if sys.argv[1:2] == ["--fit"]:
        return as_fit()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4, help="samples in a step, of all processes together")
    args = parser.parse_args()
    from lib.record import publish

    with tempfile.TemporaryDirectory(prefix="ddp-") as place:
        figures = compared(Path(place), args.steps, args.batch)
    note = (
        f"{SAMPLES} samples in {SHARDS} shards, batches of {args.batch}, DDP over gloo. Half-way a process is ended by "
        "SIGKILL; checkpoints are 7 steps apart."
    )
    return publish("ddp", "Training on two processes", figures, note)


if __name__ == "__main__":
    sys.exit(main())
