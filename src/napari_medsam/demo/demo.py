"""``napari-medsam demo``: drive the real window through the whole job, and say how long each step took.

A sample is opened, its boxes are drawn with the mouse, one mask is corrected with the brush and everything is
exported, by the same events a person's hand would make. Nothing is mocked: what fails here fails for a user.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from scipy.ndimage import distance_transform_edt

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.demo.pointer import Pointer
from napari_medsam.errors import MedSAMError
from napari_medsam.samples import Sample, find_sample, sample_layers
from napari_medsam.ui.desk.desk import Desk
from napari_medsam.ui.dock.dock import MedSAMDock
from napari_medsam.ui.launch import WINDOW_SIZE, add_dock

TIMEOUT_S = 120.0
BRUSH = 14


class DemoError(MedSAMError):
    """A step of the demo did not do what a user would expect."""


def run_demo(out_dir: str | Path, sample: str = "ihc") -> int:
    """Run the demo; leave ``window.png`` and ``dataset/`` in ``out_dir`` and return the exit status."""
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
        Demo(out, sample).run()
    except (MedSAMError, OSError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """The steps, in order. Each prints one line with its time."""

    def __init__(self, out: Path, sample: str) -> None:
        self.out = out
        self.name = sample
        self.sample: Sample = find_sample(sample)
        self.viewer: napari.Viewer
        self.dock: MedSAMDock

    def run(self) -> None:
        with _step("open the window with the MedSAM dock"):
            self.viewer = napari.Viewer(title="napari-medsam")
            self.viewer.window.resize(*WINDOW_SIZE)
            self.dock = add_dock(Desk(self.viewer))
            QApplication.processEvents()
        try:
            self._embed()
            self._draw_boxes()
            self._correct()
            self._export()
            self._picture()
        finally:
            self.dock.close_session()
            self.viewer.close()
            QApplication.processEvents()

    @property
    def work(self) -> Any:
        return self.dock.controller.work

    def _embed(self) -> None:
        ready: list[bool] = []
        self.dock.controller.session.shown.connect(lambda _plane, hit: ready.append(hit))
        with _step(f"open the sample {self.name!r}, load the model and embed it") as note:
            data, options, _kind = sample_layers(self.name)[0]
            self.viewer.add_image(data, **options)
            _wait(lambda: bool(ready), "the plane to be embedded")
            note("from the cache" if ready[0] else "encoded")

    def _draw_boxes(self) -> None:
        self.dock.tools.draw.click()
        self._name_classes()
        pointer = Pointer(self.viewer)
        for number, (box, class_name) in enumerate(
            zip(self.sample.boxes, self.sample.classes, strict=True), 1
        ):
            self.work.choose_class(self._class_id(class_name))
            self.work.prompts.layer.mode = "add_rectangle"
            r0, c0, r1, c1 = box
            painted: list[int] = []
            self.dock.controller.painted.connect(painted.append)
            pointer.drag([(r0 - 0.5, c0 - 0.5), (r1 - 0.5, c1 - 0.5)])
            with _step(f"box {number} ({class_name}): from mouse release to painted mask") as note:
                _wait(partial(bool, painted), "its mask")
                found = self._part(painted[0]).prediction
                note(f"object {painted[0]}, predicted IoU {found.iou:.2f}, {found.area} px")
            self.dock.controller.painted.disconnect(painted.append)
        with _step("sharpen the masks on fields of their own"):
            session = self.dock.controller.session
            _wait(lambda: not session.awaited(self.work.document), "the last mask")
        empty = [part.object_id for part in self.work.document.parts() if not part.prediction.area]
        if empty:
            raise DemoError(f"the masks of objects {empty} are empty")

    def _part(self, object_id: int) -> Any:
        """An object on the plane of the sample."""
        return next(iter(self.work.document[object_id].parts.values()))

    def _correct(self) -> None:
        part = self.work.document.parts()[0]
        with _step(f"correct object {part.object_id} with the brush") as note:
            labels = self.work.masks.layer
            start, stop = self._stroke(part)
            self.viewer.layers.selection.active = labels
            labels.mode = "paint"
            labels.brush_size = BRUSH
            labels.selected_label = part.object_id
            before = int(np.count_nonzero(labels.data == part.object_id))
            Pointer(self.viewer).drag([start, stop], steps=12)
            _wait(lambda: self._part(part.object_id).corrected, "the correction to be noticed")
            note(f"{int(np.count_nonzero(labels.data == part.object_id)) - before:+d} px")
        labels.mode = "pan_zoom"

    def _stroke(self, part: Any) -> tuple[tuple[float, float], tuple[float, float]]:
        """From the middle of the mask to the spot in its box that lies farthest from any mask."""
        labels = np.asarray(self.work.masks.layer.data)
        free = np.zeros(labels.shape, dtype=bool)
        r0, c0, r1, c1 = (int(edge) for edge in part.box.array())
        free[r0 + BRUSH : r1 - BRUSH, c0 + BRUSH : c1 - BRUSH] = True
        away = np.where(free, distance_transform_edt(labels == 0), 0)
        stop = np.unravel_index(int(np.argmax(away)), away.shape)
        rows, cols = np.nonzero(labels == part.object_id)
        return (float(rows.mean()), float(cols.mean())), (float(stop[0]), float(stop[1]))

    def _export(self) -> None:
        folder = self.out / "dataset"
        self.dock.export.folder.value = folder
        with _step("export the masks as a training case") as note:
            done = self.dock.desk.export()
            if done is None:
                raise DemoError("there was nothing to export")
            _wait(done.done, "the case to be written")
            (path,) = done.result()
            note(self._check(CuratedDataset(folder), path))

    def _check(self, dataset: CuratedDataset, path: Path) -> str:
        """Read the case back and hold it against what the window shows."""
        problems = dataset.validate()
        if problems:
            raise DemoError(f"the dataset has these problems: {problems}")
        case = dataset[path.stem]
        corrected = [found.label for found in case.objects if found.corrected]
        if len(case.objects) != len(self.sample.boxes) or len(corrected) != 1:
            raise DemoError(f"the case holds {len(case.objects)} objects, {len(corrected)} of them corrected")
        if not np.array_equal(case.gts > 0, np.asarray(self.work.masks.layer.data) > 0):
            raise DemoError("the exported labels are not those on screen")
        return f"{len(case.objects)} objects, {len(corrected)} corrected, {path.name}"

    def _picture(self) -> None:
        target = self.out / "window.png"
        with _step("take a picture of the window") as note:
            self.work.prompts.layer.selected_data = set()
            settled = time.monotonic() + 0.5
            _wait(lambda: time.monotonic() > settled, "the window to settle")
            self.viewer.screenshot(str(target), canvas_only=False)
            note(str(target))

    def _name_classes(self) -> None:
        for number, name in enumerate(dict.fromkeys(self.sample.classes), start=1):
            self.work.document.set_class(number, name)

    def _class_id(self, name: str) -> int:
        return next(int(found.id) for found in self.work.document.classes if found.name == name)


@contextmanager
def _step(title: str) -> Iterator[Callable[[str], None]]:
    """Print ``title``, the time until the block ends and what it notes; nothing when it fails."""
    notes: list[str] = []
    start = time.perf_counter()
    yield notes.append
    taken = 1000 * (time.perf_counter() - start)
    print(f"{taken:8.0f} ms  {title}" + (f": {', '.join(notes)}" if notes else ""), flush=True)


def _wait(done: Callable[[], bool], what: str) -> None:
    """Let Qt work until ``done()``. Raises DemoError after two minutes."""
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise DemoError(f"waited {TIMEOUT_S:.0f} s for {what}")
        QApplication.processEvents()
        time.sleep(0.001)
