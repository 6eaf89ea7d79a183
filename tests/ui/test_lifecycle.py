"""What may go away or change while the encoder works: images, their pixels, layers, the dock, the viewer."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_medsam import FakeLoader, FakeMedSAM
from planes import corners, filled
from qtpy.QtCore import QCoreApplication, QEvent
from ui_desk import Desk

A, B = (40, 60, 120, 180), (150, 20, 220, 90)


@pytest.fixture
def held(desk: Desk, image: np.ndarray) -> Desk:
    """A desk whose encoder has begun with the image and does not go on, with one box that waits for it."""
    desk.model.hold()
    desk.viewer.add_image(image, name="first")
    desk.wait(desk.model.encoding.is_set)
    desk.add_boxes(A, wait=False)
    return desk


def finish(desk: Desk) -> None:
    """Let the encoder go and wait until it has nothing to do, and all that came of it has arrived."""
    states: list[str] = []
    desk.controller.progressed.connect(lambda now: states.append(now.state))
    desk.model.release()
    desk.wait(lambda: states[-1:] == ["idle"])
    desk.settle()


class TestCancel:
    def test_it_takes_one_encode_at_most_and_the_finished_field_is_kept(
        self, held: Desk, image: np.ndarray
    ) -> None:
        held.viewer.add_image(255 - image, name="second")
        held.wait(lambda: held.statuses[-1] == "second: embedding ...")
        assert held.dock.progress.cancel.isEnabled()
        held.dock.progress.cancel.click()
        finish(held)
        assert len(held.model.encoded) == 1
        assert held.painted == []
        assert "Cancelled" in held.statuses[-1]
        assert not held.dock.progress.cancel.isEnabled()
        assert held.session.cache.stats().entries == 1

        held.viewer.layers.selection.active = held.viewer.layers["first"]
        held.move_box(1, B)
        assert np.array_equal(held.mask(1), filled(image.shape, B))
        assert len(held.model.encoded) == 1

    def test_the_progress_shows_and_goes(self, held: Desk) -> None:
        assert not held.dock.progress.bar.isHidden()
        finish(held)
        assert held.dock.progress.bar.isHidden()


class TestImageGoes:
    def test_a_removed_image_gets_no_mask(self, held: Desk) -> None:
        held.viewer.layers.remove("first")
        assert held.controller.work is None
        finish(held)
        assert held.painted == []
        assert not any("failed" in text for text in held.said)
        held.wait(lambda: held.dock.objects.table.rowCount() == 0)

    def test_replaced_pixels_answer_for_the_waiting_box(self, desk: Desk) -> None:
        desk.model.look = True
        left, right = np.zeros((2, 256, 256), np.uint8)
        left[:, :120], right[:, 120:] = 255, 255
        desk.model.hold()
        layer = desk.viewer.add_image(left)
        desk.wait(desk.model.encoding.is_set)
        desk.add_boxes(A, wait=False)
        layer.data = right
        finish(desk)
        assert desk.painted == [1]
        assert np.array_equal(desk.mask(1), filled(right.shape, A) & (right > 0))

    def test_pixels_of_another_size_start_anew(self, held: Desk) -> None:
        held.work.choose_class(4)
        held.viewer.layers["first"].data = np.full((128, 200), 200, np.uint8)
        finish(held)
        assert held.painted == []
        assert held.ids == []
        held.viewer.layers.selection.active = held.viewer.layers["first"]
        held.add_boxes((10, 20, 60, 90))
        assert held.labels.data.shape == (128, 200)
        assert held.work.document[1].class_id == 4

    def test_pixels_with_another_number_of_axes_start_anew(self, held: Desk, image: np.ndarray) -> None:
        held.viewer.layers["first"].data = np.stack([image] * 3)
        finish(held)
        held.viewer.layers.selection.active = held.viewer.layers["first"]
        held.add_boxes(A)
        assert held.labels.data.shape == (3, 256, 256)

    def test_the_old_boxes_can_be_taken_over_to_the_new_pixels(self, held: Desk, image: np.ndarray) -> None:
        boxes = held.shapes
        held.viewer.layers["first"].data = np.stack([image] * 3)
        finish(held)
        held.viewer.layers.selection.active = boxes
        held.dock.tools.draw.click()
        held.wait(lambda: held.painted == [1])
        assert held.shapes is boxes
        on_screen = held.viewer.dims.current_step[0]
        assert np.array_equal(held.labels.data[on_screen] == 1, filled(image.shape, A))

    def test_the_plane_of_an_image_left_behind_is_not_announced(self, held: Desk, image: np.ndarray) -> None:
        held.viewer.add_image(255 - image, name="second")
        held.wait(lambda: held.statuses[-1] == "second: embedding ...")
        finish(held)
        assert [plane.name for plane, _ in held.shown] == ["second"]
        assert held.statuses[-1].startswith("second: ready")
        # The box on the first image is still wanted: its mask lands in the first image's labels.
        held.viewer.layers.selection.active = held.viewer.layers["first"]
        assert np.array_equal(held.mask(1), filled(image.shape, A))

    def test_a_slice_left_behind_is_not_announced_but_its_box_is_answered(
        self, desk: Desk, image: np.ndarray
    ) -> None:
        stack = np.stack([np.roll(image, 10 * step, axis=0) for step in range(4)])
        desk.model.hold()
        desk.viewer.add_image(stack)
        desk.viewer.dims.set_current_step(0, 1)
        desk.wait(desk.model.encoding.is_set)
        desk.dock.tools.draw.click()
        desk.shapes.add_rectangles([corners(A, 3, [1])])
        desk.viewer.dims.set_current_step(0, 3)
        desk.settle()
        finish(desk)
        assert [plane.index for plane, _ in desk.shown] == [(3, None, None)]
        assert np.array_equal(desk.labels.data[1] == 1, filled(image.shape, A))
        assert not desk.labels.data[[0, 2, 3]].any()

    def test_pixels_changed_in_place_in_a_large_plane_are_seen(self, desk: Desk) -> None:
        desk.model.look = True
        pixels = np.zeros((1536, 1536), np.uint8)
        pixels[:, :768] = 255
        layer = desk.open(pixels)
        [first] = desk.add_boxes((300, 300, 600, 1200))
        assert not desk.labels.data[:, 770:].any()
        pixels[:] = 255 - pixels
        layer.refresh()
        [second] = desk.add_boxes((600, 300, 900, 1200))
        assert desk.mask(first).any()
        assert desk.mask(second)[:, 770:].any()
        assert not desk.mask(second)[:, :766].any()

    def test_replaced_pixels_are_let_go_of(self, desk: Desk) -> None:
        pixels = np.full((1536, 1536), 200, np.uint8)
        gone = weakref.ref(pixels)
        layer = desk.open(pixels)
        desk.add_boxes((300, 300, 600, 1200))
        layer.data = np.full((1536, 1536), 100, np.uint8)
        del pixels
        desk.wait(lambda: len(desk.shown) == 2)
        desk.add_boxes((600, 300, 900, 1200))
        desk.shown.clear()
        desk.settle()
        gc.collect()
        assert gone() is None


class TestLayersGo:
    def test_deleted_masks_come_back_with_the_next_box(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        desk.paint(1, slice(0, 10), slice(0, 10))
        desk.paint(9, slice(20, 30), slice(0, 10))
        desk.viewer.layers.remove(desk.labels)
        assert desk.work.masks is None
        desk.add_boxes(B)
        assert np.array_equal(desk.mask(1), filled(image.shape, A))
        assert np.array_equal(desk.mask(10), filled(image.shape, B))
        assert [part.corrected for part in desk.parts] == [False, False]
        desk.undo()
        assert not desk.mask(10).any()

    def test_deleted_boxes_leave_the_masks_and_new_ones_can_be_drawn(
        self, desk: Desk, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.add_boxes(A)
        desk.viewer.layers.remove(desk.shapes)
        assert desk.work.prompts is None
        assert desk.add_boxes(B) == [2]
        assert np.array_equal(desk.mask(1), filled(image.shape, A))
        assert np.array_equal(desk.mask(2), filled(image.shape, B))

    def test_masks_deleted_while_the_encoder_works(self, held: Desk, image: np.ndarray) -> None:
        held.viewer.layers.remove(held.labels)
        finish(held)
        assert np.array_equal(held.mask(1), filled(image.shape, A))

    def test_boxes_deleted_while_the_encoder_works_get_no_mask(self, held: Desk) -> None:
        held.delete_box(1)
        finish(held)
        assert held.painted == []
        assert not held.labels.data.any()

    def test_selecting_the_boxes_of_an_image_puts_it_to_work(self, desk: Desk, image: np.ndarray) -> None:
        first = desk.open(image, name="first")
        desk.add_boxes(A)
        boxes = desk.shapes
        desk.open(255 - image, name="second")
        assert desk.work.image is not first
        desk.viewer.layers.selection.active = boxes
        assert desk.work.image is first
        assert desk.dock.image.layer.value is first


class TestEnd:
    def test_a_viewer_closed_while_the_encoder_works(self, held: Desk) -> None:
        held.viewer.close()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        assert held.model.closed
        assert held.painted == []

    def test_a_dock_closed_by_the_user_ends_its_session(self, held: Desk, image: np.ndarray) -> None:
        held.viewer.window.remove_dock_widget(held.dock)
        assert held.model.closed
        held.wait(lambda: not any(t.name.startswith("medsam") for t in threading.enumerate()))
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        held.viewer.add_image(image, name="later")
        held.viewer.layers.remove("first")
        held.settle()
        assert held.painted == []

    def test_a_dock_opened_again_takes_up_the_boxes(self, desk: Desk, image: np.ndarray) -> None:
        desk.open(image)
        desk.add_boxes(A)
        viewer = desk.viewer
        viewer.window.remove_dock_widget(desk.dock)
        again = Desk(viewer, desk.qtbot, desk.folder, desk.loader)
        again.wait(lambda: again.painted == [1])
        assert np.array_equal(again.mask(1), filled(image.shape, A))
        assert len(again.model.encoded) == 1  # the cache is the same

    def test_a_dock_that_floats_goes_on(self, desk: Desk, image: np.ndarray) -> None:
        holder = desk.dock.parent()
        holder.setFloating(True)
        holder.setFloating(False)
        desk.open(image)
        desk.add_boxes(A)
        assert desk.painted == [1]

    def test_a_dock_closed_twice(self, desk: Desk) -> None:
        desk.dock.close_session()
        desk.dock.close_session()
        desk.viewer.close()

    def test_a_dock_opened_after_the_image_finds_it(
        self, make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Any, image: np.ndarray
    ) -> None:
        viewer = make_napari_viewer()
        layer = viewer.add_image(image)
        desk = Desk(viewer, qtbot, tmp_path, FakeLoader({"lite-medsam": FakeMedSAM()}))
        desk.wait(lambda: bool(desk.shown))
        assert desk.work.image is layer
        desk.add_boxes(A)
