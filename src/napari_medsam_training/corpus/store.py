"""Embeddings of a dataset for training, in shards: each a Zarr group of few files, whole or absent.

features  (fields, C, h, w) float16      one embedding for each field
targets   (samples, 256, 256) uint8      share of each logit that the object covers, zeros beyond the field's content

The group's attributes name the model; `fields` has row, col, height and width of each field in its plane, `samples`
the case, plane, label, class and group of each sample, the number of its field, its box (half-open, in plane pixels),
and how many rows and columns of its target the field fills.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medsam.records import from_json, from_plain, plain

KIND = "napari-medsam training shard"
VERSION = 1
SIDE = 256  # of a target
_FIELDS_A_FILE = 16  # embeddings that are written, and read back in one piece, at a time: 32 MiB
_SAMPLES_A_FILE = 64


@dataclass(frozen=True)
class SampleName:
    """Where a sample comes from. plane: the slice of a volume, 0 in a 2D case."""

    case: str
    plane: int
    label: int
    class_name: str
    group: str


@dataclass(frozen=True)
class ShardAbout:
    """What made a shard: the model, and (case, why) of each case that was left out."""

    model: str
    encoder_hash: str
    precision: str
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ShardLine:
    """One shard in store.json; left_out: how many cases."""

    name: str
    fields: int
    samples: int
    left_out: int


@dataclass(frozen=True)
class StoreAbout:
    """What store.json says. detail, views: how objects were seen, as in `FinetuneConfig`."""

    model: str
    encoder_hash: str
    precision: str
    detail: int
    views: int
    shards: tuple[ShardLine, ...]


SampleRow = tuple[
    str, int, int, str, str, int, tuple[float, float, float, float], tuple[int, int]
]  # SampleName's, the number of the field, the box, the target's shape


@dataclass(frozen=True)
class _Tables:
    fields: tuple[tuple[int, int, int, int], ...]
    samples: tuple[SampleRow, ...]


@dataclass(frozen=True, eq=False)
class Stored:
    """One sample as training takes it; see the module for shapes."""

    name: SampleName
    features: npt.NDArray[np.float16]
    field: tuple[int, int, int, int]
    box: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]


class ShardWriter:
    """Writes one shard: `field` and its `sample`s in turn, at most a few fields in memory at a time.

    It takes its name when the block ends without an error; until then, and after a kill, a hidden folder has it.
    """

    def __init__(self, path: Path, about: ShardAbout) -> None:
        self.about = about  # another one may take its place until the block ends
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._fields: list[tuple[int, int, int, int]] = []
        self._samples: list[SampleRow] = []

    def __enter__(self) -> ShardWriter:
        import zarr

        self._temporary.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._group = zarr.create_group(self._temporary, zarr_format=3)
        self._features: _Growing | None = None
        self._targets = _Growing(self._group, "targets", (SIDE, SIDE), "uint8", _SAMPLES_A_FILE)
        return self

    def field(self, edges: tuple[int, int, int, int], features: npt.NDArray[np.float16]) -> int:
        """Add a field (row, col, height, width) with its embedding; gives its number."""
        if self._features is None:
            self._features = _Growing(self._group, "features", features.shape, "float16", _FIELDS_A_FILE)
        self._features.append(features)
        self._fields.append(edges)
        return len(self._fields) - 1

    def sample(
        self,
        name: SampleName,
        field: int,
        box: tuple[float, float, float, float],
        target: npt.NDArray[np.uint8],
    ) -> None:
        """Add an object on a field; target: (h, w) uint8, up to 256 a side."""
        height, width = target.shape
        place = (name.case, name.plane, name.label, name.class_name, name.group)
        self._samples.append((*place, field, box, (height, width)))
        self._targets.append(np.pad(target, [(0, SIDE - side) for side in target.shape]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            return
        for array in (self._features, self._targets):
            if array is not None:
                array.close()
        tables = plain(_Tables(tuple(self._fields), tuple(self._samples)))
        self._group.attrs.put({"kind": KIND, "version": VERSION, **plain(self.about), **tables})
        shutil.rmtree(self._path, ignore_errors=True)
        self._temporary.replace(self._path)


class _Growing:
    """An array that grows along its first axis, `block` entries a file; the last file may hold fewer."""

    def __init__(self, group: Any, name: str, shape: tuple[int, ...], dtype: str, block: int) -> None:
        from zarr.codecs import BloscCodec, Crc32cCodec

        self.count, self._block = 0, block
        self._held: list[np.ndarray] = []
        self._array = group.create_array(
            name,
            shape=(0, *shape),
            chunks=(1, *shape),
            shards=(block, *shape),
            dtype=dtype,
            compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},  # or zarr looks through each for anything but zeros
        )

    def append(self, value: np.ndarray) -> None:
        self._held.append(value)
        self.count += 1
        if len(self._held) == self._block:
            self.close()

    def close(self) -> None:
        if self._held:
            self._array.resize((self.count, *self._array.shape[1:]))
            self._array[self.count - len(self._held) :] = np.stack(self._held).astype(self._array.dtype)
            self._held = []


class Shard:
    """One shard, opened for reading; only the parts asked for are read. Raises ValueError for another folder."""

    def __init__(self, path: Path) -> None:
        import zarr

        self.path = path
        self._group: Any = zarr.open_group(path, mode="r", zarr_format=3)
        attributes = dict(self._group.attrs)
        if (attributes.get("kind"), attributes.get("version")) != (KIND, VERSION):
            raise ValueError(
                f"{path} is not a shard of version {VERSION}. Run embed.py again into an empty folder."
            )
        self.about = from_plain(ShardAbout, attributes, "attributes")
        tables = from_plain(_Tables, attributes, "attributes")
        self._fields, self._samples = tables.fields, tables.samples

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def fields(self) -> int:
        """How many embeddings it holds."""
        return len(self._fields)

    @property
    def names(self) -> list[SampleName]:
        """Where each sample comes from."""
        return [SampleName(*row[:5]) for row in self._samples]

    def __getitem__(self, number: int) -> Stored:
        row = self._samples[number]
        field, box, (height, width) = row[5:]
        return Stored(
            SampleName(*row[:5]),
            np.asarray(self._group["features"][field]),
            self._fields[field],
            np.array(box, np.float32),
            np.asarray(self._group["targets"][number, :height, :width]),
        )

    def __iter__(self) -> Iterator[Stored]:
        return (self[number] for number in range(len(self)))


class EmbeddingStore:
    """A folder of shards and `store.json`, which lists them. Raises OSError, ValueError where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = from_json(StoreAbout, (path / "store.json").read_bytes())

    def shards(self) -> Iterator[Shard]:
        """The shards, one at a time, in the order of their cases' names."""
        return (Shard(shard_path(self.path, line.name)) for line in self.about.shards)


def shard_path(store: Path, name: str) -> Path:
    """Where a store keeps a shard."""
    return store / "shards" / f"{name}.zarr"
