"""The canvas waits a moment for the mask of the box just drawn, and is let go in any case."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QWidget
from ui_desk import Desk

from napari_medsam.demo.pointer import Pointer, find_canvas
from napari_medsam.ui.qt import hold as hold_module


@pytest.fixture
def canvas(mouse_desk: Desk, image: np.ndarray) -> QWidget:
    mouse_desk.open(image)
    mouse_desk.dock.tools.draw.click()
    return find_canvas()


def draw_unanswered(desk: Desk) -> None:
    """Draw a box whose field is nowhere, while the encoder is held."""
    desk.session.cache.clear()
    desk.model.hold()
    Pointer(desk.viewer).drag([(40, 60), (120, 180)])


def test_it_repaints_with_the_mask(
    mouse_desk: Desk, canvas: QWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold_module, "LONGEST_MS", 60_000)
    draw_unanswered(mouse_desk)
    mouse_desk.settle()
    assert not canvas.updatesEnabled()
    mouse_desk.model.release()
    mouse_desk.wait(lambda: mouse_desk.painted == [1])
    assert canvas.updatesEnabled()


def test_it_repaints_without_one_after_a_moment(mouse_desk: Desk, canvas: QWidget) -> None:
    draw_unanswered(mouse_desk)
    assert not canvas.updatesEnabled()
    mouse_desk.wait(canvas.updatesEnabled)
    assert mouse_desk.painted == []


def test_closing_lets_it_go(mouse_desk: Desk, canvas: QWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "LONGEST_MS", 60_000)
    draw_unanswered(mouse_desk)
    mouse_desk.model.release()
    mouse_desk.dock.close_session()
    assert canvas.updatesEnabled()
