"""Many small computations on a few cores: one thread each, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_single_threaded(work: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """work of each item, in order: every call on one thread, as many calls at a time as torch uses threads.

    torch splits an operation of a millisecond over its threads and waits for the slowest. Next to an encode,
    or to any other program that is busy, that wait is a scheduler's time slice, again and again: a decode
    takes 3 times as long as on one thread.
    """
    with _one_thread_each() as workers:
        if len(items) < 2 or workers < 2:
            return [work(item) for item in items]
        # What MKL splits a product over is a setting of the thread: without it the last bits depend on who computes.
        with ThreadPoolExecutor(min(workers, len(items)), initializer=_compute_alone) as pool:
            return list(pool.map(work, items))


def _compute_alone() -> None:
    import torch

    torch.set_num_threads(1)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """torch computes on one thread in here; gives the number of threads it had, and sets it again."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
