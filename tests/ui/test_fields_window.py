"""Answer at once, sharpen later: what the window makes of a second, better mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from planes import filled
from ui_desk import Desk

from napari_medsam.session.settings import Settings

SMALL, LARGE = (40, 60, 64, 92), (20, 30, 200, 220)


@pytest.fixture
def sharp(open_desk: Callable[..., Desk], image: np.ndarray) -> Desk:
    """A desk where small boxes have fields of their own; the whole plane is embedded, the encoder then held."""
    desk = open_desk(settings=Settings(field="auto", ahead=False))
    desk.open(image)
    desk.model.hold()
    return desk


def finish(desk: Desk) -> None:
    states: list[str] = []
    desk.controller.progressed.connect(lambda now: states.append(now.state))
    desk.model.release()
    desk.wait(lambda: states[-1:] == ["idle"])
    desk.settle()


def test_a_small_box_is_answered_at_once_and_then_again(sharp: Desk, image: np.ndarray) -> None:
    sharp.add_boxes(SMALL)
    assert np.array_equal(sharp.mask(1), filled(image.shape, SMALL))
    assert not sharp.model.gate.is_set()
    finish(sharp)
    assert sharp.painted == [1, 1]
    prediction = sharp.part(1).prediction
    assert prediction is not None
    assert prediction.field.height < 256
    assert np.array_equal(sharp.mask(1), prediction.full(image.shape))
    assert sharp.part(1).extent == (
        prediction.row,
        prediction.col,
        prediction.row + prediction.mask.shape[0],
        prediction.col + prediction.mask.shape[1],
    )


def test_a_large_box_is_answered_once(sharp: Desk, image: np.ndarray) -> None:
    sharp.add_boxes(LARGE)
    finish_at_once = len(sharp.model.encoded)
    sharp.model.release()
    sharp.settle()
    assert sharp.painted == [1]
    assert finish_at_once == len(sharp.model.encoded) == 1
    assert np.array_equal(sharp.mask(1), filled(image.shape, LARGE))


def test_a_correction_made_meanwhile_stays(sharp: Desk) -> None:
    sharp.add_boxes(SMALL)
    sharp.paint(1, slice(30, 40), slice(60, 70))
    kept = sharp.labels.data.copy()
    finish(sharp)
    assert sharp.painted == [1]
    assert np.array_equal(sharp.labels.data, kept)
    assert sharp.part(1).corrected


def test_a_box_deleted_meanwhile_stays_deleted(sharp: Desk) -> None:
    sharp.add_boxes(SMALL)
    sharp.delete_box(1)
    finish(sharp)
    assert sharp.painted == [1]
    assert not sharp.labels.data.any()
    assert sharp.ids == []


def test_undo_goes_back_over_both_answers(sharp: Desk) -> None:
    sharp.add_boxes(SMALL)
    first = sharp.mask(1)
    finish(sharp)
    sharp.undo()
    if np.array_equal(sharp.mask(1), first):  # the two masks may be the same, and then there is one step
        sharp.undo()
    assert not sharp.labels.data.any()
    sharp.move_box(1, LARGE)
    assert np.array_equal(sharp.mask(1), filled((256, 256), LARGE))


def test_the_next_slice_is_embedded_when_it_is_looked_at(desk: Desk, image: np.ndarray) -> None:
    states: list[str] = []
    desk.controller.progressed.connect(lambda now: states.append(now.state))
    desk.viewer.add_image(np.stack([np.roll(image, 20 * step, axis=0) for step in range(6)]), name="stack")
    desk.viewer.dims.set_current_step(0, 3)
    desk.wait(lambda: bool(desk.shown) and states[-1:] == ["idle"])
    assert len(desk.model.encoded) == 5
    desk.shown.clear()
    desk.viewer.dims.set_current_step(0, 4)
    desk.wait(lambda: bool(desk.shown))
    [(plane, hit)] = desk.shown
    assert (plane.index, hit) == ((4, None, None), True)
