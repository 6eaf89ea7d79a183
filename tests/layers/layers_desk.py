"""One image at work in napari's model of a viewer: no window, no Qt, and an event loop that the test turns."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_medsam import PATIENCE_S, FakeLoader, FakeMedSAM
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from planes import BoxEdges, Hands, corners

from napari_medsam.document.objects import Part
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.layers.stage import Choices
from napari_medsam.layers.work import Work
from napari_medsam.session.session import Session
from napari_medsam.session.settings import Settings


class LayersDesk(Hands):
    """What a window does for one image, as far as its layers are concerned; it says what a window's desk says.

    What the session posts and what is to be run later waits until the test waits for something, or settles.
    """

    def __init__(self, folder: Path) -> None:
        self.viewer = ViewerModel()
        self.model = FakeMedSAM()
        self.choices = Choices(preview=False)
        self._posted: queue.Queue[Callable[[], object]] = queue.Queue()
        self._later: list[tuple[float, Callable[[], object]]] = []
        self.session = Session(
            Settings(field="whole", ahead=False),
            cache=EmbeddingCache(folder / "embeddings"),
            post=self._posted.put,
            load=FakeLoader({"lite-medsam": self.model}),
        )
        self.session.predicted.connect(lambda _, part: self.work.painting.arrived(part))
        self.viewer.layers.events.removed.connect(self._on_removed)
        self.said: list[str] = []
        self.painted: list[int] = []
        self._work: Work | None = None

    def close(self) -> None:
        if self._work is not None:
            self._work.close()
        self.session.close()

    @property
    def work(self) -> Work:
        assert self._work is not None
        return self._work

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

    @property
    def parts(self) -> list[Part]:
        return self.work.document.parts()

    def part(self, object_id: int) -> Part:
        """An object's part on its only plane."""
        [part] = self.work.document[object_id].parts.values()
        return part

    def later(self, function: Callable[[], object], seconds: float = 0.0) -> None:
        self._later.append((time.monotonic() + seconds, function))

    def turn(self) -> None:
        """One turn of the event loop: what was posted, and what is due."""
        while not self._posted.empty():
            self._posted.get_nowait()()
        now = time.monotonic()
        due = [function for moment, function in self._later if moment <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for function in due:
            function()

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.turn()
            time.sleep(0.001)

    def settle(self) -> None:
        """Run all that was asked for, and look what undo or redo did."""
        self.wait(lambda: self._posted.empty() and not self._later)
        self.work.recheck()

    def open(self, data: Any, *, channel: int | None = None, **options: Any) -> Image:
        """Add an image and put it to work."""
        layer = self.viewer.add_image(data, **options)
        self.put_to_work(layer, channel)
        return layer

    def put_to_work(self, layer: Image, channel: int | None = None) -> None:
        self._work = Work(self.viewer, layer, self.session, self.choices, self.later, channel)
        self._work.notice.connect(self.said.append)
        self._work.painting.painted.connect(self.painted.extend)

    def draw_boxes(self) -> None:
        """Begin to draw boxes, on a Shapes layer of the user's if one is selected."""
        chosen = self.viewer.layers.selection.active
        if isinstance(chosen, Shapes) and (self.work.prompts is None or chosen is not self.shapes):
            self.work.attach_prompts(chosen)
        self.work.ready_layers()

    def add_boxes(self, *boxes: BoxEdges, wait: bool = True) -> list[int]:
        """Add rectangles by their plane edges (r0, c0, r1, c1), as a script would; wait for their masks."""
        return self.add_boxes_at((), *boxes, wait=wait)

    def add_boxes_at(self, place: Sequence[float], *boxes: BoxEdges, wait: bool = True) -> list[int]:
        """Like `add_boxes`, at a position on the axes before (row, col)."""
        if self.work.prompts is None:
            self.draw_boxes()
        known = set(self.ids)
        self.shapes.add_rectangles([corners(box, self.shapes.ndim, place) for box in boxes])
        new = [object_id for object_id in self.ids if object_id not in known]
        if wait:
            self.wait(lambda: set(new) <= set(self.painted))
        return new

    def start_over(self) -> None:
        """Take all layers away and forget what happened."""
        self.work.close()
        self._work = None
        self.viewer.layers.clear()
        self.viewer.dims.order = tuple(range(self.viewer.dims.ndim))
        self.session.forget()
        self.session.cache.clear()
        self._later.clear()
        for kept in (self.said, self.painted, self.model.encoded, self.model.decoded):
            kept.clear()

    def undo(self) -> None:
        self.labels.undo()
        self.settle()

    def redo(self) -> None:
        self.labels.redo()
        self.settle()

    def mask(self, object_id: int) -> np.ndarray:
        return np.asarray(self.labels.data) == object_id

    def _on_removed(self, event: Any) -> None:
        if self._work is not None and self._work.prompts is not None and event.value is self.shapes:
            self._work.drop_prompts()
