"""The live preview: it follows the box that is dragged, leaves nothing behind, and can be switched off."""

from __future__ import annotations

import numpy as np
import pytest
from planes import filled
from ui_desk import Desk

from napari_medsam.demo.pointer import Pointer
from napari_medsam.document.objects import PlaneKey
from napari_medsam.geometry import Box
from napari_medsam.layers.geometry import WorkAxes
from napari_medsam.layers.make import add_preview, show_preview
from napari_medsam.segment.prediction import Prediction


def test_the_mask_follows_the_drag_and_goes_with_it(mouse_desk: Desk, image: np.ndarray) -> None:
    desk = mouse_desk
    desk.open(image)
    desk.dock.tools.draw.click()
    desk.dock.tools.preview.setChecked(True)
    hand = Pointer(desk.viewer)
    hand.press((40, 60))
    for step in range(1, 9):
        hand.move((40 + 10 * step, 60 + 10 * step))
        desk.qtbot.wait(10)
    preview = desk.work.preview
    desk.wait(lambda: preview.layer is not None and preview.layer.visible)
    layer = preview.layer
    assert layer is not None
    desk.wait(lambda: np.allclose(layer.data.shape, (80, 80), atol=2))
    assert np.allclose(layer.translate, (40, 60), atol=1.5)
    assert desk.viewer.layers.selection.active is desk.shapes
    assert desk.ids == []
    assert not desk.labels.data.any()

    hand.release((120, 140))
    desk.wait(lambda: desk.painted == [1])
    assert not layer.visible
    desk.undo()
    assert not desk.labels.data.any()  # one step, and the preview none

    desk.dock.tools.preview.setChecked(False)
    before = len(desk.model.decoded)
    hand.drag([(150, 20), (220, 90)])
    desk.wait(lambda: desk.painted == [1, 2])
    assert len(desk.model.decoded) == before + 1
    assert not layer.visible


def test_one_look_at_a_time_and_the_newest_box_wins(
    desk: Desk, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open(image)
    desk.dock.tools.draw.click()
    desk.dock.tools.preview.setChecked(True)
    preview, asked = desk.work.preview, []
    monkeypatch.setattr(desk.session, "peek", lambda _plane, box, then: asked.append((box, then)))
    desk.shapes.add_rectangles([np.array([[20, 20], [20, 60], [60, 60], [60, 20]])])
    desk.shapes.selected_data = {0}
    for reach in (60, 70, 80):
        desk.shapes.data = [np.array([[20, 20], [20, reach], [reach, reach], [reach, 20]])]
        desk.shapes.selected_data = {0}
        preview._look()
    assert len(asked) == 1
    asked[0][1](None)
    assert [box.r1 for box, _ in asked] == [60.5, 80.5]
    preview._end()
    asked[1][1](Prediction(None, 0, 0, np.ones((2, 2), bool), 0.9, "k", None))  # type: ignore[arg-type]
    assert preview.layer is None or not preview.layer.visible
    assert len(asked) == 2


def test_it_lies_where_the_mask_lies_whatever_the_transforms(desk: Desk) -> None:
    stack = np.zeros((3, 64, 64), np.uint8)
    layer = desk.viewer.add_image(
        stack, scale=(2, 0.5, 0.25), translate=(1, 5, -3), affine=np.diag([1, 1.5, 2, 1]), rotate=np.eye(3)
    )
    axes = WorkAxes(3)
    preview = add_preview(desk.viewer, layer, axes)
    key = desk.work.shown_plane()
    found = Prediction(Box(1, 1, 2, 2), 10, 20, filled((4, 6), (0, 0, 4, 6)), 0.9, "k", None)  # type: ignore[arg-type]
    show_preview(preview, found, PlaneKey((2, None, None), key.displayed), layer, axes)
    assert preview.data.shape == (1, 4, 6)
    assert np.allclose(preview.data_to_world((0, 0, 0)), layer.data_to_world((2, 10, 20)))
    assert np.allclose(preview.data_to_world((0, 3, 5)), layer.data_to_world((2, 13, 25)))
