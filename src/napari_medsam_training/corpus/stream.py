"""The samples of a sharded store in a shuffled order, from any place on, for any number of processes.

Order and reading are apart: `Shuffle` draws where to go from the seed, the epoch and the shards' sizes alone, and
`SampleReader` goes there. A place in a run is an epoch and how many of its samples are behind, whoever took them.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_medsam.errors import CaseError
from napari_medsam_training.corpus.sides import read_sides
from napari_medsam_training.corpus.store import EmbeddingStore, Shard, Stored, shard_path

MIXED = 16
"""Shards whose samples are shuffled together: neighbours in a shard are often of one patient or archive."""


@dataclass(frozen=True)
class Place:
    """Where a run is. epoch counts from 1; position: samples of it that are behind, of all processes together."""

    epoch: int = 1
    position: int = 0


@dataclass(frozen=True)
class SampleAt:
    """One sample in one epoch: its shard and its number there."""

    epoch: int
    shard: int
    sample: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """What of a store is trained on. names: of its shards; chosen: for each the numbers of its samples that count.

    model, encoder_hash, detail, views: as embed.py wrote them. content: a hash over the shards and what is chosen.
    """

    path: Path
    names: tuple[str, ...]
    chosen: tuple[npt.NDArray[np.int64], ...]
    model: str
    encoder_hash: str
    detail: int
    views: int

    def __len__(self) -> int:
        return sum(map(len, self.chosen))

    @property
    def content(self) -> str:
        """A hash over the shards, whose names stand for what went into them, and the samples chosen."""
        digest = hashlib.sha256()
        for name, numbers in zip(self.names, self.chosen, strict=True):
            digest.update(name.encode() + numbers.tobytes())
        return digest.hexdigest()


def open_corpus(path: Path, split: Path | None = None) -> Corpus:
    """The samples of a store, or those whose case a table (CSV: stem, side) puts on the side `train`.

    Without a table no shard is opened; with one the tables of all shards are read once. Raises CaseError naming the
    store, shard or table: missing, damaged, unfinished, or nothing in it to train on.
    """
    try:
        about = EmbeddingStore(path).about
    except (OSError, ValueError) as error:
        raise CaseError(
            f"{path} is not a store of embeddings, or its store.json is damaged ({type(error).__name__}: {error}). "
            "Run embed.py to its end first."
        ) from error
    names = tuple(line.name for line in about.shards)
    gone = [name for name in names if not shard_path(path, name).is_dir()]
    if gone:
        raise CaseError(
            f"{shard_path(path, gone[0])} and {len(gone) - 1} more are missing. Run embed.py again."
        )
    chosen = (
        [np.arange(line.samples) for line in about.shards]
        if split is None
        else _train_side(path, names, split)
    )
    if not sum(map(len, chosen)):
        raise CaseError(f"{path} holds no samples to train on. Embed a dataset with corrected masks.")
    return Corpus(path, names, tuple(chosen), about.model, about.encoder_hash, about.detail, about.views)


def _train_side(path: Path, names: Sequence[str], table: Path) -> list[npt.NDArray[np.int64]]:
    train = {stem.removesuffix(".npz") for stem, side in read_sides(table).items() if side == "train"}
    return [np.flatnonzero([stem in train for stem in _cases(path, name)]) for name in names]


def _cases(path: Path, name: str) -> list[str]:
    return [known.case for known in _opened(path, name).names]


def _opened(path: Path, name: str) -> Shard:
    place = shard_path(path, name)
    try:
        return Shard(place)
    except Exception as error:  # zarr, its codecs and the system have classes of their own
        raise _damaged(place, error) from error


def _damaged(place: Path, error: object) -> CaseError:
    return CaseError(
        f"The shard {place} cannot be read ({type(error).__name__}: {error}). Remove its folder, run embed.py again, "
        "and go on with --resume."
    )


@dataclass(frozen=True, eq=False)
class Shuffle:
    """The order of samples: shards in a drawn order, `mixed` of them at a time, their samples in a drawn order.

    Equal for equal counts, seed and mixed, on any machine; an epoch never repeats a sample or leaves one out.
    chosen: the numbers of the samples in each shard. Memory is that of `mixed` shards' numbers.
    """

    chosen: Sequence[npt.NDArray[np.int64]]
    seed: int
    mixed: int = MIXED

    def __len__(self) -> int:
        return sum(map(len, self.chosen))

    def epoch(self, number: int, position: int = 0) -> Iterator[tuple[int, int]]:
        """(shard, sample) in turn, after so many of them."""
        shards = np.random.default_rng([self.seed, number, 4]).permutation(len(self.chosen))
        for first in range(0, len(shards), self.mixed):
            part = shards[first : first + self.mixed].tolist()
            held = sum(len(self.chosen[shard]) for shard in part)
            if position >= held:  # behind already: nothing is drawn
                position -= held
                continue
            places = [(shard, int(sample)) for shard in part for sample in self.chosen[shard]]
            order = np.random.default_rng([self.seed, number, 5, first]).permutation(held)
            yield from (places[n] for n in order[position:])
            position = 0

    def batches(
        self, batch: int, visits: int, place: Place, rank: int = 0, world: int = 1
    ) -> Iterator[list[SampleAt]]:
        """What one of `world` processes takes of each step, until `visits` samples have been shown since the start.

        Of the step's samples a process takes each `world`-th, so a step is the same for any number of processes; there
        may be none for it. An epoch's last step may be smaller.
        """
        behind = (place.epoch - 1) * len(self) + place.position
        while behind < visits:
            epoch, position = behind // len(self) + 1, behind % len(self)
            order = self.epoch(epoch, position)
            left = min(len(self) - position, visits - behind)
            for size in _sizes(left, batch):
                step = list(islice(order, size))
                yield [SampleAt(epoch, shard, sample) for shard, sample in step[rank::world]]
                behind += size


def steps_of(samples: int, batch: int, visits: int) -> int:
    """Steps in which `batches` shows so many."""
    whole, rest = divmod(visits, samples)
    return whole * math.ceil(samples / batch) + math.ceil(rest / batch)


def moved_on(place: Place, samples: int, batch: int, visits: int) -> Place:
    """The place after one more step."""
    behind = (place.epoch - 1) * samples + place.position
    size = min(batch, samples - place.position, visits - behind)
    epochs, position = divmod(place.position + size, samples)
    return Place(place.epoch + epochs, position)


def _sizes(samples: int, batch: int) -> Iterator[int]:
    for first in range(0, samples, batch):
        yield min(batch, samples - first)


class SampleReader:
    """Reads samples; keeps the last shards open. It travels to other processes while unused.

    Raises CaseError naming the shard where it is damaged.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, tuple(names)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getitem__(self, at: SampleAt) -> tuple[SampleAt, Stored]:
        shard = self._shard(at.shard)
        try:
            stored = shard[at.sample]
        except Exception as error:  # zarr, its codecs and the system have classes of their own
            raise _damaged(shard.path, error) from error
        if not stored.features.any():  # zarr reads a file that is gone as zeros
            raise _damaged(shard.path, f"the embedding of sample {at.sample} is gone")
        return at, stored

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            self._open[number] = _opened(self._path, self._names[number])
            while len(self._open) > MIXED:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]
