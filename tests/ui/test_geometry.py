"""The mouse and the dock over layers that are scaled, turned, in stacks or with channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ui_desk import Desk

from napari_medsam.demo.pointer import Pointer

BOX = (41, 63, 123, 187)
CORNERS = [(40.5, 62.5), (122.5, 186.5)]  # the first and the third, in data coordinates
ANGLE = np.deg2rad(30)
TURN = [[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]


@pytest.mark.parametrize(
    ("lead", "options"),
    [
        ((2,), {"scale": (5, 0.3, 0.7), "translate": (100, 3, 4)}),
        ((), {"scale": (0.3, 0.7), "rotate": np.array(TURN), "translate": (11.5, -70.25)}),
    ],
    ids=["stack", "scaled and turned"],
)
def test_the_mouse_hits_the_pixels_that_it_shows(
    mouse_desk: Desk, image: np.ndarray, lead: tuple[int, ...], options: dict[str, Any]
) -> None:
    desk = mouse_desk
    layer = desk.viewer.add_image(np.stack([image] * 4) if lead else image, **options)
    for axis, position in enumerate(lead):
        desk.viewer.dims.set_current_step(axis, position)
    desk.viewer.reset_view()
    desk.dock.tools.draw.click()
    Pointer(desk.viewer).drag([layer.data_to_world((*lead, *corner))[-2:] for corner in CORNERS])
    desk.wait(lambda: desk.painted == [1])
    box = desk.part(1).box
    assert box is not None
    assert np.allclose(box.array(), BOX, atol=2)
    assert desk.part(1).plane.index == (*lead, None, None)


def test_a_view_of_the_channel_axis_is_refused_with_the_way_out(desk: Desk, image: np.ndarray) -> None:
    desk.viewer.add_image(np.stack([image] * 5, axis=2), rgb=False)
    desk.viewer.dims.order = (2, 0, 1)
    desk.controller.set_channel_axis(2)
    desk.viewer.dims.order = (0, 1, 2)
    desk.dock.tools.draw.click()
    assert "channel axis" in desk.said[-1]
    assert desk.work.prompts is None
