"""Shards of work under Dask: in this process, on processes of this machine, or on a cluster; the same calls."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from napari_medsam.errors import CaseError

Task = TypeVar("Task")
Result = TypeVar("Result")
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]

_AHEAD = 16  # shards of a graph for each worker: bounds what the scheduler holds, whatever the corpus' size


def add_options(parser: ArgumentParser, what: str) -> None:
    """The options of a command that works through shards of `what` under an engine."""
    add = parser.add_argument
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster")
    add("--workers", type=int, default=1, help="processes on this machine, without --scheduler")
    add("--shard-size", type=int, default=32, help=f"{what} in a shard, on average")
    add("--quiet", action="store_true", help="no progress bar")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder for one run. Raises CaseError while another one, on this machine, has it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".run.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CaseError(f"Another run is writing to {folder}. Wait for it, or end it.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def engine(scheduler: str | None = None, workers: int = 1) -> Iterator[Run]:
    """A `run(function, tasks)` that yields results in order.

    scheduler: address of a Dask cluster, whose workers must see the same folders and import this code. workers:
    processes on this machine where no scheduler is given; 1 computes in this process.
    """
    if scheduler is None and workers <= 1:
        yield lambda function, tasks: _run(function, tasks, "synchronous", 1)
        return
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler) as client:
            yield lambda function, tasks: _run(function, tasks, client, len(client.nthreads()))
        return
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield lambda function, tasks: _run(function, tasks, client, workers)


def _run(
    function: Callable[[Task], Result], tasks: Iterable[Task], scheduler: Any, workers: int
) -> Iterator[Result]:
    import dask

    todo = iter(tasks)
    one = dask.delayed(function, pure=False, traverse=False)
    while batch := list(islice(todo, _AHEAD * max(workers, 1) if scheduler != "synchronous" else 1)):
        yield from dask.compute(*(one(task) for task in batch), scheduler=scheduler, traverse=False)
