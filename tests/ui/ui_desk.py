"""A desk to work at: a viewer, the dock with a quick model, and what the dock's controller said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_medsam import FakeLoader, FakeMedSAM
from napari.layers import Image, Labels, Shapes
from planes import BoxEdges, Hands, corners
from qtpy.QtCore import QTimer

from napari_medsam.document.objects import Part, PlaneKey
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.layers.work import Work
from napari_medsam.session.settings import Settings
from napari_medsam.ui.desk import desk as owner
from napari_medsam.ui.launch import add_dock

TIMEOUT_MS = 15_000


class Desk(Hands):
    """One viewer with the dock, and everything the dock's controller ever said.

    Boxes are answered from the whole plane unless `settings` say otherwise, and there is no live preview, so that each
    is decoded just once.
    """

    def __init__(self, viewer: Any, qtbot: Any, folder: Path, loader: FakeLoader, **options: Any) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.loader = loader
        self.folder = folder
        options.setdefault("settings", Settings(field="whole"))
        cache = EmbeddingCache(folder / "embeddings")
        self.dock = add_dock(owner.Desk(viewer, load=loader, cache=cache, **options))
        self.dock.tools.preview.setChecked(False)
        self.controller = self.dock.controller
        self.session = self.controller.session
        self.said: list[str] = []
        self.statuses: list[str] = []
        self.painted: list[int] = []
        self.shown: list[tuple[Any, bool]] = []
        self.controller.message.connect(self.said.append)
        self.controller.status.connect(self.statuses.append)
        self.controller.painted.connect(self.painted.append)
        self.session.shown.connect(lambda plane, hit: self.shown.append((plane, hit)))
        self.wait(lambda: bool(loader.asked))  # the dock begins a moment after its window is up

    @property
    def model(self) -> FakeMedSAM:
        return self.loader.models[self.session.settings.model]

    @property
    def work(self) -> Work:
        assert self.controller.work is not None
        return self.controller.work

    @property
    def shapes(self) -> Shapes:
        assert self.work.prompts is not None
        return self.work.prompts.layer

    @property
    def labels(self) -> Labels:
        assert self.work.masks is not None
        return self.work.masks.layer

    @property
    def ids(self) -> list[int]:
        return [record.id for record in self.work.document]

    def part_on(self, object_id: int, z: int) -> Part:
        """An object's part on a slice of a stack."""
        return self.work.document.part(object_id, PlaneKey((z, None, None), (1, 2)))

    @property
    def parts(self) -> list[Part]:
        return self.work.document.parts()

    def part(self, object_id: int) -> Part:
        """An object's part on its only plane."""
        [part] = self.work.document[object_id].parts.values()
        return part

    def wait(self, condition: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(condition, timeout=TIMEOUT_MS)

    def open(self, data: Any, **options: Any) -> Image:
        """Add an image and wait until its plane on screen is embedded."""
        before = len(self.shown)
        layer = self.viewer.add_image(data, **options)
        self.wait(lambda: len(self.shown) > before)
        return layer

    def add_boxes(self, *boxes: BoxEdges, wait: bool = True) -> list[int]:
        """Add rectangles by their plane edges (r0, c0, r1, c1), as a script would; wait for their masks."""
        return self.add_boxes_at((), *boxes, wait=wait)

    def add_boxes_at(self, place: Sequence[float], *boxes: BoxEdges, wait: bool = True) -> list[int]:
        """Like `add_boxes`, at a position on the axes before (row, col)."""
        if self.work.prompts is None:
            self.dock.tools.draw.click()
        known = set(self.ids)
        self.shapes.add_rectangles([corners(box, self.shapes.ndim, place) for box in boxes])
        new = [object_id for object_id in self.ids if object_id not in known]
        if wait:
            self.wait(lambda: set(new) <= set(self.painted))
        return new

    def start_over(self) -> None:
        """Take all layers away and forget what happened: a new viewer would take a second."""
        self.viewer.layers.clear()
        self.viewer.dims.order = tuple(range(self.viewer.dims.ndim))
        self.session.cache.clear()
        for kept in (
            self.said,
            self.statuses,
            self.painted,
            self.shown,
            self.model.encoded,
            self.model.decoded,
        ):
            kept.clear()

    def paint_on(self, label: int, z: int, patch: tuple[slice, slice]) -> None:
        """Paint a rectangle of a slice, wherever the view is."""
        self.labels.data_setitem(tuple(np.mgrid[slice(z, z + 1), *patch].reshape(3, -1)), label)

    def settle(self) -> None:
        """Let every queued call and timer of the controller run."""
        done: list[bool] = []
        QTimer.singleShot(150, lambda: done.append(True))  # the controller's own timers wait 80 ms
        self.wait(lambda: bool(done))

    def undo(self) -> None:
        self.labels.undo()
        self.settle()

    def redo(self) -> None:
        self.labels.redo()
        self.settle()

    def mask(self, object_id: int) -> np.ndarray:
        return np.asarray(self.labels.data) == object_id
