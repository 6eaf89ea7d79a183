"""One shard of pairs to cases on disk and a record of what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_medsam.curation.case_files import prepared, write_prepared
from napari_medsam.curation.formats.sidecar import read_sidecar
from napari_medsam.curation.manifest import entry_of
from napari_medsam.curation.problem import BrokenCase
from napari_medsam_training.corpus.job import Job
from napari_medsam_training.corpus.left_out import LeftOut
from napari_medsam_training.corpus.pair import curate_pair
from napari_medsam_training.corpus.pairing import Pair
from napari_medsam_training.corpus.rows import CaseRow, LeftRow
from napari_medsam_training.corpus.shards import write_lines


@dataclass(frozen=True)
class CurateTask:
    """A shard: its pairs, and the file that will say it is done."""

    job: Job
    pairs: tuple[Pair, ...]
    record: str


def curate_shard(task: CurateTask) -> tuple[int, int]:
    """Curate a shard's pairs one after the other; gives (cases, pairs left out).

    Cases are written whole or not at all, the record last: a shard that was cut short is done again and finds its
    cases in place. Raises BrokenCase where the dataset cannot be written.
    """
    rows = list(_rows(task))
    write_lines(Path(task.record), rows)
    left = sum(isinstance(row, LeftRow) for row in rows)
    return len(rows) - left, left


def _rows(task: CurateTask) -> Iterator[CaseRow | LeftRow]:
    for pair in task.pairs:
        try:
            yield _row(task.job, pair)
        except LeftOut as error:
            yield LeftRow(pair.key, pair.image.name, pair.mask.name, error.kind, error.reason)


def _row(job: Job, pair: Pair) -> CaseRow:
    curated = curate_pair(job, pair)
    case = curated.case
    folder = Path(job.dataset)
    try:
        ready = prepared(case, folder)
    except BrokenCase as error:
        raise LeftOut("refused", f"It makes no sound case: {error.problem.what}.") from error
    path = write_prepared(folder, ready)
    return CaseRow(
        key=pair.key,
        name=pair.image.name,
        stem=path.stem,
        group=case.group or pair.key,
        classes=Counter(item.class_name for item in case.objects),
        planes=1 if case.gts.ndim == 2 else int(case.gts.any(axis=(1, 2)).sum()),
        pixels=curated.pixels,
        remarks=curated.remarks,
        entry=entry_of(path.stem, read_sidecar(path)),
    )
