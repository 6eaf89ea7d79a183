"""What a run of curation has to do, and what of it is done already: from the files as they are and its records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_medsam.curation.problem import BrokenCase
from napari_medsam.curation.split import Role
from napari_medsam.files import replacing
from napari_medsam.records import from_json, plain
from napari_medsam_training.corpus.curate_shard import CurateTask
from napari_medsam_training.corpus.job import Job
from napari_medsam_training.corpus.left_out import Left
from napari_medsam_training.corpus.pairing import Pair
from napari_medsam_training.corpus.rows import CaseRow, LeftRow, RunRecord
from napari_medsam_training.corpus.shards import cut, read_lines, shard_name, write_lines

FOLDER = "curation"  # in the dataset: records, tables and the report


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its records: `curation/NAME` in the dataset."""

    path: Path

    @property
    def records(self) -> Path:
        return self.path / "records"

    @property
    def about(self) -> Path:
        return self.path / "run.json"

    def read(self) -> RunRecord:
        """What the run was started with. Raises OSError, ValueError."""
        return from_json(RunRecord, self.about.read_bytes())

    def rows(self) -> Iterator[CaseRow | LeftRow]:
        """What became of each pair, in order; only shards that are done."""
        for name in self.read().records:
            path = self.records / f"{name}.jsonl"
            if path.exists():
                yield from rows_in(path)

    def cases(self) -> Iterator[CaseRow]:
        """The pairs that became cases."""
        return (row for row in self.rows() if isinstance(row, CaseRow))

    def left(self) -> Iterator[Left]:
        """Files that came into no pair."""
        return read_lines(self.path / "unpaired.jsonl", Left)


def rows_in(record: Path) -> Iterator[CaseRow | LeftRow]:
    """What became of the pairs of one shard."""
    rows: Iterator[CaseRow | LeftRow] = read_lines(record, CaseRow | LeftRow)  # type: ignore[arg-type]
    return rows


def runs_of(dataset: Path) -> list[RunFolder]:
    """The runs that a dataset was curated in, by name."""
    return [RunFolder(path.parent) for path in sorted((dataset / FOLDER).glob("*/run.json"))]


def plan(
    job: Job,
    name: str,
    pairs: list[Pair],
    left: list[Left],
    seed: int,
    sides: Mapping[str, Role] | None,
    size: int,
) -> tuple[RunFolder, list[CurateTask], int]:
    """Write down what a run is, and give its folder, the shards that are still to be done, and how many there are.

    seed, sides: how cases are divided. size: of a shard, on average. A shard is done when its record is there; the
    record's name depends on the settings and on names, sizes and times of its files. Raises BrokenCase where the name
    belongs to other folders.
    """
    folder = RunFolder(Path(job.dataset, FOLDER, name))
    _check_same_folders(folder, job)
    digest = job.settings.digest()
    tasks: list[CurateTask] = []
    names: list[str] = []
    for shard in cut(pairs, lambda pair: pair.key, size):
        names.append(shard_name(shard[0].key, digest, [_facts(job, pair) for pair in shard]))
        record = folder.records / f"{names[-1]}.jsonl"
        if not record.exists():
            tasks.append(CurateTask(job, shard, str(record)))
    about = RunRecord(job.images, job.masks, job.settings, tuple(names), seed, sides)
    folder.records.mkdir(parents=True, exist_ok=True)
    write_lines(folder.path / "unpaired.jsonl", left)
    with replacing(folder.about) as stream:
        stream.write(json.dumps(plain(about), indent=1, sort_keys=True).encode() + b"\n")
    return folder, tasks, len(names)


def _check_same_folders(folder: RunFolder, job: Job) -> None:
    try:
        about = folder.read()
    except (OSError, ValueError):
        return
    if (about.images, about.masks) != (job.images, job.masks):
        what = f"was curated from {about.images} and {about.masks}"
        raise BrokenCase(folder.path, what, "Give this run a name of its own (--name)")


def _facts(job: Job, pair: Pair) -> list[object]:
    """What tells that the same pair would be made again: names, group, and each file's size and time."""
    files = [Path(job.images, name) for name in pair.image.files] + [
        Path(job.masks, name) for name in pair.mask.files
    ]
    return [pair.key, pair.group, *(_stamp(path) for path in files)]


def _stamp(path: Path) -> list[object]:
    try:
        status = path.stat()
    except OSError:
        return [path.name, None, None]
    return [path.name, status.st_size, status.st_mtime_ns]
