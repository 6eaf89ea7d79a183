"""A napari that was killed, or closed too early, comes back where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_medsam import FakeMedSAM
from planes import corners, filled
from ui_desk import Desk

from napari_medsam.document.objects import DocumentEdit
from napari_medsam.folders import journal_folder
from napari_medsam.geometry import Box
from napari_medsam.image.identity import identify
from napari_medsam.journal.format import part_line, to_line
from napari_medsam.journal.recovery import find_unsaved
from napari_medsam.layers import make as layers_module
from napari_medsam.ui.dock.recovery_row import CONFIRM, DISCARD, describe

A, B, C = (40, 60, 120, 180), (150, 20, 220, 90), (100, 150, 200, 240)


def written(desk: Desk) -> None:
    """Wait until all that has changed is on disk."""
    journals = desk.dock.desk.journals
    for journal in journals._journals:
        journal.flush()
    journals._thread.submit(lambda: None).result(20)


def files() -> list[str]:
    return [path.name for path in journal_folder().rglob("*") if path.is_file()]


def text(desk: Desk) -> str | None:
    """What the dock offers; None when it offers nothing."""
    row = desk.dock.recovery
    return None if row.isHidden() else row.text.text()


def looked(desk: Desk) -> None:
    """Wait until journals have been looked for, and what was found has arrived."""
    written(desk)
    desk.settle()


def reopened(desk: Desk, image: np.ndarray, **options: Any) -> None:
    """Close the image with all its layers and open it again."""
    desk.start_over()
    desk.open(image, **options)
    looked(desk)


def restored(desk: Desk) -> None:
    said = len(desk.said)
    desk.dock.recovery.restore.click()
    desk.wait(lambda: len(desk.said) > said)
    desk.settle()


def state(desk: Desk) -> dict[str, Any]:
    """All that a user sees of an image: labels, boxes with their texts and colours, clicks, classes, objects."""
    work = desk.work
    order = np.argsort(desk.shapes.features["object"].to_numpy())
    seen: dict[str, Any] = {
        "labels": np.array(desk.labels.data),
        "boxes": [np.round(desk.shapes.data[row], 6).tolist() for row in order],
        "features": desk.shapes.features.iloc[order].values.tolist(),
        "colors": np.round(desk.shapes.edge_color[order], 3).tolist(),
        "classes": work.document.classes,
        "objects": [to_line(part_line(part, work.document[part.object_id].class_id)) for part in desk.parts],
        "corrected": [part.corrected for part in desk.parts],
    }
    clicks = work.clicking.clicks
    if clicks is not None:
        seen["clicks"] = np.round(clicks.layer.data, 6).tolist()
        seen["signs"] = clicks.layer.features.values.tolist()
    return seen


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert np.array_equal(found.pop("labels"), wanted.pop("labels"))
    assert found == wanted


@pytest.fixture
def clicking_desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk(models={"lite-medsam": FakeMedSAM(prompts=frozenset({"box", "point"}))})


def work_on(desk: Desk) -> None:
    """A predicted object, a corrected one of another class, one painted by hand, one with clicks."""
    desk.add_boxes(A)
    desk.work.choose_class(2)
    desk.work.document.set_class(2, "nucleus", "#00ff00")
    desk.add_boxes(B)
    desk.paint(2, slice(140, 160), slice(20, 60))
    desk.paint(9, slice(0, 10), slice(0, 12))
    desk.add_boxes(C)


def test_all_of_it_comes_back_without_the_model(clicking_desk: Desk, image: np.ndarray) -> None:
    desk = clicking_desk
    desk.open(image, name="cells", scale=(0.5, 0.25), translate=(3, 4))
    work_on(desk)
    desk.work.select(10)
    desk.dock.tools.click.click()
    layer = desk.work.clicking.clicks.layer  # type: ignore[union-attr]
    for place in ((110, 230), (190, 160)):
        painted = len(desk.painted)
        layer.add([place])
        desk.wait(lambda before=painted: len(desk.painted) > before)
    wanted = state(desk)
    assert wanted["corrected"].count(True) == 2
    assert len(wanted["clicks"]) == 2
    reopened(desk, image, name="cells", scale=(0.5, 0.25), translate=(3, 4))
    assert desk.ids == []
    assert text(desk) is not None
    assert text(desk).startswith("4 objects from today")  # type: ignore[union-attr]
    restored(desk)
    assert_same(state(desk), wanted)
    assert desk.said == ["4 objects restored."]
    assert desk.model.decoded == []
    assert text(desk) is None

    desk.paint(1, slice(30, 50), slice(60, 80))  # and it goes on from there
    assert desk.part(1).corrected
    [new] = desk.add_boxes((5, 200, 30, 250))
    assert new == 11
    wanted = state(desk)
    reopened(desk, image, name="cells", scale=(0.5, 0.25), translate=(3, 4))
    assert text(desk).startswith("5 objects from today")  # type: ignore[union-attr]
    restored(desk)
    assert_same(state(desk), wanted)


def test_polygons_and_ellipses_come_back_as_they_were_drawn(desk: Desk, image: np.ndarray) -> None:
    desk.open(image, name="cells", scale=(0.5, 0.25), rotate=10)
    desk.add_boxes(A)
    polygon = np.array([[150, 20], [220, 50], [180.5, 90], [160, 60]])
    turned = np.array([[30, 200], [50, 180], [70, 200], [50, 220]])
    for shape, kind in ((polygon, "polygon"), (corners(C), "ellipse"), (turned, "rectangle")):
        painted = len(desk.painted)
        desk.shapes.add([shape], shape_type=kind)
        desk.wait(lambda before=painted: len(desk.painted) > before)
    wanted, kinds = state(desk), list(desk.shapes.shape_type)
    # So all are written once more when the shapes are gone already.
    desk.work.document.edited.emit(DocumentEdit(parts=tuple(part.key for part in desk.parts)))
    reopened(desk, image, name="cells", scale=(0.5, 0.25), rotate=10)
    restored(desk)
    assert_same(state(desk), wanted)
    assert list(desk.shapes.shape_type) == kinds == ["rectangle", "polygon", "ellipse", "rectangle"]
    assert np.allclose(desk.shapes.data[1], polygon)
    assert desk.work.prompts is not None
    assert not desk.work.prompts.changes()


def test_undo_and_redo_are_written_too(desk: Desk, image: np.ndarray) -> None:
    desk.open(image)
    desk.add_boxes(A)
    desk.paint(1, slice(130, 140), slice(60, 100))
    desk.paint(1, slice(150, 160), slice(60, 100))
    written(desk)
    desk.undo()
    time.sleep(0.4)  # no other change: the timer alone must see to it
    desk.settle()
    wanted = state(desk)
    reopened(desk, image)
    restored(desk)
    assert_same(state(desk), wanted)


def test_deleted_objects_stay_away_and_what_they_covered_is_back(desk: Desk, image: np.ndarray) -> None:
    desk.open(image)
    desk.dock.controller.choices.policy = "later"
    desk.add_boxes(A)
    desk.add_boxes(C)
    written(desk)
    desk.delete_box(2)
    wanted = state(desk)
    reopened(desk, image)
    assert text(desk).startswith("1 object from")  # type: ignore[union-attr]
    restored(desk)
    assert_same(state(desk), wanted)
    assert np.array_equal(desk.mask(1), filled(image.shape, A))


def test_a_stack_with_channels_comes_back_on_its_planes(desk: Desk, image: np.ndarray) -> None:
    stack = np.stack([np.stack([image, 255 - image])] * 3)
    desk.open(stack, name="stack")
    desk.controller.set_channel_axis(1)
    desk.add_boxes_at((0, 0), A)
    desk.add_boxes_at((2, 0), B)
    wanted = state(desk)
    reopened(desk, stack, name="stack")
    assert desk.work.axes.channel is None
    restored(desk)
    assert desk.work.axes.channel == 1
    found = state(desk)
    for seen in (found, wanted):  # the one element of the channel axis is as wide as all channels
        seen["boxes"] = [[(p[0], round(p[1]), *p[2:]) for p in box] for box in seen["boxes"]]
    assert_same(found, wanted)


@pytest.mark.parametrize("on_disk", [False, True])
def test_paint_through_several_planes_comes_back(
    desk: Desk, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_disk: bool
) -> None:
    if on_disk:
        monkeypatch.setattr(layers_module, "IN_MEMORY", 1000)
        monkeypatch.setattr(layers_module.tempfile, "tempdir", str(tmp_path))
    stack = np.stack([image] * 4)
    desk.open(stack)
    desk.add_boxes_at((0,), A)
    for planes in ((0, 3), (1, 4)):
        desk.labels.data_setitem(tuple(np.mgrid[slice(*planes), 130:150, 60:90].reshape(3, -1)), 1)
    wanted = state(desk)
    assert [bool((plane == 1).any()) for plane in wanted["labels"]] == [True] * 4
    reopened(desk, stack)
    restored(desk)
    assert isinstance(desk.labels.data, np.ndarray) != on_disk
    assert_same(state(desk), wanted)


def test_discard_wants_to_be_sure_and_is_for_good(desk: Desk, image: np.ndarray) -> None:
    desk.open(image)
    desk.add_boxes(A)
    reopened(desk, image)
    row = desk.dock.recovery
    row.discard.click()
    assert text(desk) is not None
    assert row.discard.text() == CONFIRM
    row._reset_discard()
    assert row.discard.text() == DISCARD
    row.discard.click()
    row.discard.click()
    assert text(desk) is None
    reopened(desk, image)
    assert text(desk) is None
    assert desk.ids == []
    assert files() == []


class TestExported:
    def export(self, desk: Desk) -> None:
        done = desk.dock.desk.export(desk.folder / "cases")
        assert done is not None
        desk.wait(lambda: desk.dock.export.button.isEnabled())
        written(desk)

    def test_an_export_takes_the_offer_away(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        work_on(desk)
        self.export(desk)
        reopened(desk, image)
        assert text(desk) is None
        assert files() == []

    def test_what_changed_since_is_offered_with_all_the_rest(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        work_on(desk)
        self.export(desk)
        desk.paint(1, slice(30, 50), slice(60, 80))
        wanted = state(desk)
        reopened(desk, image)
        assert text(desk).startswith("1 of 4 objects from today")  # type: ignore[union-attr]
        restored(desk)
        assert_same(state(desk), wanted)
        reopened(desk, image)
        assert text(desk).startswith("1 of 4 objects from today")  # type: ignore[union-attr]

    def test_what_changed_while_it_was_written_does_not_count(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A, B)
        done = desk.dock.desk.export(desk.folder / "cases")
        desk.paint(2, slice(140, 160), slice(20, 60))
        assert done is not None
        desk.wait(lambda: desk.dock.export.button.isEnabled())
        reopened(desk, image)
        assert text(desk).startswith("1 of 2 objects from today")  # type: ignore[union-attr]

    def test_a_failed_one_takes_nothing_away(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        blocked = desk.folder / "file"
        blocked.write_text("in the way")
        desk.dock.desk.export(blocked)
        desk.wait(lambda: desk.dock.export.button.isEnabled())
        reopened(desk, image)
        assert text(desk).startswith("1 object from today")  # type: ignore[union-attr]


class TestWhatWasDrawnSince:
    def test_objects_get_other_ids_and_only_free_pixels(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A, B)
        reopened(desk, image)
        desk.add_boxes(C)
        restored(desk)
        assert desk.ids == [1, 2, 3]
        assert np.array_equal(desk.mask(1), filled(image.shape, C))
        assert np.array_equal(desk.mask(2), filled(image.shape, A) & ~filled(image.shape, C))
        assert np.array_equal(desk.mask(3), filled(image.shape, B))
        assert sorted(desk.shapes.features["object"]) == [1, 2, 3]

    def test_the_same_boxes_drawn_again_give_way(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A, B)
        desk.paint(2, slice(140, 160), slice(20, 60))
        wanted = state(desk)
        reopened(desk, image)
        desk.add_boxes(A, B)
        restored(desk)
        assert_same(state(desk), wanted)

    def test_two_that_were_left_come_one_after_the_other(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        reopened(desk, image)
        desk.add_boxes(B, C)
        reopened(desk, image)
        assert text(desk).startswith("2 objects")  # type: ignore[union-attr]
        restored(desk)
        assert text(desk).startswith("1 object ")  # type: ignore[union-attr]
        restored(desk)
        assert text(desk) is None
        assert len(desk.ids) == 3
        reopened(desk, image)
        assert text(desk).startswith("3 objects")  # type: ignore[union-attr]


def test_a_box_without_its_mask_is_asked_for_again(desk: Desk, image: np.ndarray) -> None:
    desk.model.hold()
    desk.viewer.add_image(image)
    desk.wait(desk.model.encoding.is_set)
    desk.add_boxes(A, wait=False)
    written(desk)
    desk.model.release()
    reopened(desk, image)
    restored(desk)
    desk.wait(lambda: desk.painted == [1])
    assert np.array_equal(desk.mask(1), filled(image.shape, A))


def test_another_image_is_not_offered_it(desk: Desk, image: np.ndarray) -> None:
    desk.open(image, name="cells")
    desk.add_boxes(A)
    desk.start_over()
    desk.open(255 - image, name="cells")
    looked(desk)
    assert text(desk) is None
    desk.open(image, name="other name")
    looked(desk)
    assert text(desk) is not None
    desk.viewer.layers.selection.active = desk.viewer.layers["cells"]
    assert text(desk) is None


def test_the_boxes_of_a_sample_are_no_work_until_they_are_touched(desk: Desk, image: np.ndarray) -> None:
    about = {"napari_medsam": {"role": "prompts", "classes": ["gland", "lumen"]}}

    def open_sample() -> None:
        desk.start_over()
        desk.open(image)
        desk.viewer.add_shapes([corners(A), corners(B)], shape_type="rectangle", metadata=about)
        desk.wait(lambda: len(desk.painted) == 2)
        looked(desk)

    open_sample()
    open_sample()
    assert text(desk) is None
    assert len(files()) <= 2  # the journal in use
    desk.paint(2, slice(140, 160), slice(20, 60))
    wanted = state(desk)
    open_sample()
    assert text(desk).startswith("1 of 2 objects")  # type: ignore[union-attr]
    restored(desk)
    assert_same(state(desk), wanted)


def test_two_windows_do_not_touch_each_others(open_desk: Callable[..., Desk], image: np.ndarray) -> None:
    one, other = open_desk(), open_desk()
    one.open(image, name="cells")
    one.add_boxes(A)
    written(one)
    other.open(image, name="cells")
    looked(other)
    assert text(other) is None
    other.add_boxes(B, C)
    one.dock.close_session()
    other.dock.close_session()
    found = find_unsaved(journal_folder(), identify([image], name="cells"))
    assert sorted(unsaved.objects for unsaved in found) == [1, 2]
    assert all(unsaved.read().broken == 0 for unsaved in found)
    for unsaved in found:
        unsaved.leave()


def test_the_last_stroke_before_the_viewer_is_closed_is_kept(
    open_desk: Callable[..., Desk], image: np.ndarray
) -> None:
    desk = open_desk()
    desk.open(image, name="cells")
    desk.add_boxes(A)
    desk.paint(1, slice(130, 140), slice(60, 100))
    wanted = np.array(desk.labels.data)
    desk.viewer.layers.clear()
    desk.dock.close_session()
    [unsaved] = find_unsaved(journal_folder(), identify([image], name="cells"))
    [pixels] = unsaved.read().pixels
    assert np.array_equal(pixels.patch.within(Box(0, 0, *image.shape)), wanted == 1)
    unsaved.leave()


def test_a_folder_that_cannot_be_written_is_said_once_and_hinders_nothing(
    desk: Desk, image: np.ndarray
) -> None:
    journal_folder().mkdir(parents=True, exist_ok=True)
    (journal_folder() / "v1").write_text("in the way")
    desk.open(image, name="cells")
    desk.add_boxes(A)
    desk.add_boxes(B)
    looked(desk)
    told = [said for said in desk.said if "not kept safe" in said]
    assert len(told) == 1
    assert str(journal_folder()) in told[0]
    assert np.array_equal(desk.mask(2), filled(image.shape, B))
    (journal_folder() / "v1").unlink()
    desk.add_boxes(C)
    reopened(desk, image)
    assert text(desk).startswith("3 objects")  # type: ignore[union-attr]


def test_a_large_mask_does_not_hold_the_window(desk: Desk) -> None:
    side = 6000
    desk.open(np.zeros((side, side), np.uint8))
    desk.add_boxes((100, 100, 5900, 5900))
    written(desk)
    desk.paint(1, slice(10, 5990, 97), slice(10, 5990, 89))
    gaps, last = [], time.perf_counter()
    kept = desk.dock.desk.journals._journals[0]
    kept.flush()
    assert kept._writing is not None
    while not kept._writing.done():
        desk.qtbot.wait(1)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    assert len(gaps) > 3
    assert sorted(gaps)[-2] < 0.2


@pytest.mark.parametrize(
    ("unsaved", "objects", "said"),
    [
        (1, 1, "1 object from 9 September 2001, "),
        (3, 3, "3 objects from 9 September 2001, "),
        (1, 3, "1 of 3 objects from 9 September 2001, "),
    ],
)
def test_the_sentence(unsaved: int, objects: int, said: str) -> None:
    found = describe(unsaved, objects, 1_000_000_000)
    assert found.startswith(said)
    assert found.endswith(f"{'was' if unsaved == 1 else 'were'} not exported.")


SCRIPT = """
import sys, time
sys.path[:0] = {paths!r}
import napari, numpy as np
from pathlib import Path
from fake_medsam import FakeLoader, FakeMedSAM
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.session.settings import Settings
from napari_medsam.ui.desk.desk import Desk
from napari_medsam.ui.launch import add_dock
from qtpy.QtWidgets import QApplication
from planes import corners

viewer = napari.Viewer(show=False)
loader = FakeLoader({{"lite-medsam": FakeMedSAM()}})
cache = EmbeddingCache(Path({folder!r}))
dock = add_dock(Desk(viewer, load=loader, cache=cache, settings=Settings(field="whole")))
viewer.add_image(np.load({image!r}), name="cells")

def wait(condition):
    while not condition():
        QApplication.processEvents()
        time.sleep(0.002)

wait(lambda: dock.controller.work is not None and loader.asked)
work = dock.controller.work
dock.tools.draw.click()
work.document.set_class(2, "nucleus")
work.prompts.layer.add_rectangles([corners(box) for box in {boxes!r}])
wait(lambda: all(part.prediction is not None for part in work.document.parts()))
work.document.classify(2, 2)
rows, cols = np.mgrid[140:160, 20:60].reshape(2, -1)
work.masks.layer.data_setitem((rows, cols), 2)
np.save({labels!r}, work.masks.layer.data)
end = time.monotonic() + 1.0
wait(lambda: time.monotonic() > end)
print("ready", flush=True)
while True:
    number = work.document.add(work.document.parts()[0].plane, None, 1).id  # busy, as it is killed
    work.document.remove(number)
    QApplication.processEvents()
"""


def test_after_a_kill_a_new_napari_restores_what_it_showed(
    desk: Desk, image: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image)
    here = Path(__file__).parent
    script = SCRIPT.format(
        paths=[str(here), str(here.parent)],
        folder=str(tmp_path / "embeddings"),
        image=str(tmp_path / "image.npy"),
        labels=str(tmp_path / "labels.npy"),
        boxes=[A, B, C],
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any(line.strip() == "ready" for line in process.stdout)
        time.sleep(np.random.default_rng(os.getpid()).random() * 0.5)
    finally:
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.communicate()
    desk.open(image, name="cells")
    looked(desk)
    assert text(desk) is not None
    restored(desk)
    assert np.array_equal(desk.labels.data, np.load(tmp_path / "labels.npy"))
    parts = [part for part in desk.parts if part.box is not None]
    assert [part.object_id for part in parts] == [1, 2, 3]
    assert [tuple(part.box.array()) for part in parts] == [A, B, C]  # type: ignore[union-attr]
    assert [desk.work.document[part.object_id].class_id for part in parts] == [1, 2, 1]
    assert [part.corrected for part in parts] == [False, True, False]
    assert desk.work.document.class_of(2).name == "nucleus"
    for shape, box in zip(desk.shapes.data, (A, B, C), strict=True):
        assert np.allclose(shape, corners(box))
    assert desk.model.decoded == []
