from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from napari_medsam.model.runtime.threads import map_single_threaded


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_items_keep_their_order_and_share_the_threads() -> None:
    together = threading.Barrier(2, timeout=30)

    def work(item: int) -> tuple[int, int]:
        together.wait()  # passes only when two items are in work at once
        return item, torch.get_num_threads()

    assert map_single_threaded(work, range(4)) == [(i, 1) for i in range(4)]
    assert torch.get_num_threads() == 2


def test_one_item_needs_no_pool() -> None:
    here = threading.get_ident()
    assert map_single_threaded(lambda _: (threading.get_ident(), torch.get_num_threads()), [0]) == [(here, 1)]


def test_an_error_leaves_the_setting_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError):
        map_single_threaded(lambda item: 1 / item, [1, 0, 2])
    assert torch.get_num_threads() == 2
