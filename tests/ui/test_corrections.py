"""A correction painted with the mouse."""

from __future__ import annotations

import numpy as np
from planes import filled
from ui_desk import Desk

from napari_medsam.demo.pointer import Pointer
from napari_medsam.geometry import Box

A, B = (40, 60, 120, 180), (150, 20, 220, 90)


def test_a_brush_stroke_corrects_its_object_and_keeps_the_prediction(
    mouse_desk: Desk, image: np.ndarray
) -> None:
    desk = mouse_desk
    desk.open(image)
    desk.add_boxes(A, B)
    desk.viewer.layers.selection.active = desk.labels
    desk.labels.selected_label = 1
    desk.labels.mode = "paint"
    desk.labels.brush_size = 10
    Pointer(desk.viewer).drag([(60, 120), (20, 120)])
    desk.wait(lambda: desk.part(1).corrected)
    record = desk.part(1)
    assert record.prediction is not None
    assert np.array_equal(record.prediction.full(image.shape), filled(image.shape, A))
    assert np.count_nonzero(desk.mask(1)) > record.prediction.area
    assert record.before is not None
    assert np.array_equal(record.before.within(Box(0, 0, *image.shape)), filled(image.shape, A))
    assert [record.corrected for record in desk.work.document] == [True, False]
    assert desk.model.decoded == [A, B]
    assert "corrected" in desk.shapes.features["label"][0]
