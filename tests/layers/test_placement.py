"""The same plane in many layers: scaled, turned, sheared, in stacks, transposed, as RGB, with channels, as a pyramid.

Each gives exactly the mask of the plain array, by the model that sees the pixels and by the box drawn on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from fake_medsam import FakeMedSAM
from layers_desk import LayersDesk
from napari.layers import Image
from planes import corners, named

from napari_medsam.segment.segmenter import Segmenter

BOX = (41, 63, 123, 187)
CORNERS = [(40.5, 62.5), (40.5, 186.5), (122.5, 186.5), (122.5, 62.5)]  # in data coordinates


def blobs() -> np.ndarray:
    """A plane of 256 x 256 with bright and dark patches that no turn or mirror maps to itself."""
    coarse = np.random.default_rng(3).random((16, 16)) > 0.45
    return np.where(np.kron(coarse, np.ones((16, 16))), 220, 20).astype(np.uint8)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """What the same model gives for the plain array, without a window."""
    return Segmenter(FakeMedSAM(look=True)).segment(blobs(), [BOX], field="whole")[0]


def stack(axis: int = 0, at: int = 2, length: int = 4) -> np.ndarray:
    """A volume that holds the plane at one position of an axis, and noise at the others."""
    noise = np.random.default_rng(1).integers(0, 256, (length, 256, 256), dtype=np.uint8)
    noise[at] = blobs()
    return np.moveaxis(noise, 0, axis)


@dataclass(frozen=True)
class Case:
    """How the plane lies in a layer: `lead` and `tail` are its data coordinates before and behind (row, col)."""

    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    lead: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    order: tuple[int, ...] | None = None
    channel: int | None = None
    labels: Callable[[np.ndarray], np.ndarray] = lambda data: data


def turned(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


CASES = {
    "plain": Case(blobs),
    "scaled and turned": Case(
        blobs, {"scale": (0.3, 0.7), "rotate": turned(30), "translate": (11.5, -70.25)}
    ),
    "sheared": Case(blobs, {"scale": (2, 1), "shear": [0.4]}),
    "affine": Case(blobs, {"affine": [[0.5, 0.2, 5], [-0.1, 0.8, -3], [0, 0, 1]], "scale": (1, 3)}),
    "mirrored": Case(blobs, {"scale": (-1, 1)}),
    "rgb": Case(lambda: np.repeat(blobs()[..., None], 3, axis=2), {"rgb": True}),
    "stack": Case(stack, {"scale": (5, 0.3, 0.7), "translate": (100, 3, 4)}, (2,), labels=lambda d: d[2]),
    "four axes": Case(lambda: np.stack([stack(at=1), stack()]), {}, (1, 2), labels=lambda d: d[1, 2]),
    "transposed view": Case(stack, {}, (2,), order=(0, 2, 1), labels=lambda d: d[2]),
    "view from the side": Case(
        lambda: stack(axis=2),
        {"scale": (1, 2, 3), "rgb": False},
        tail=(2,),
        order=(2, 1, 0),
        labels=lambda d: d[:, :, 2],
    ),
    "rgb stack": Case(
        lambda: np.repeat(stack()[..., None], 3, axis=3), {"rgb": True}, (2,), labels=lambda d: d[2]
    ),
    "leading channels": Case(lambda: np.stack([blobs()] * 2), {}, (1,), channel=0),
    "channels in the middle": Case(
        lambda: np.stack([stack(), stack()], axis=1), {}, (2, 1), channel=1, labels=lambda d: d[2, 0]
    ),
    "channels last": Case(
        lambda: np.stack([blobs()] * 5, axis=2),
        {"rgb": False},
        tail=(3,),
        order=(2, 0, 1),
        channel=2,
        labels=lambda d: d[..., 0],
    ),
    "pyramid": Case(lambda: [blobs(), blobs()[::2, ::2], blobs()[::4, ::4]], {"multiscale": True}),
}


def show(desk: LayersDesk, case: Case) -> Image:
    """Open a case's layer, with its plane on screen."""
    desk.model.look = True
    layer = desk.viewer.add_image(case.make(), **case.options)
    if case.order is not None:
        desk.viewer.dims.order = case.order
    place = (*case.lead, *[128] * 2, *case.tail)
    for axis in desk.viewer.dims.not_displayed:
        desk.viewer.dims.set_current_step(axis, place[axis])
    desk.put_to_work(layer, case.channel)
    return layer


def on_layer(case: Case) -> np.ndarray:
    """The box's corners in the image layer's data coordinates."""
    return np.array([(*case.lead, row, col, *case.tail) for row, col in CORNERS], dtype=float)


def test_the_mask_is_that_of_the_plain_array(desk: LayersDesk, expected: np.ndarray) -> None:
    for name, case in CASES.items():
        with named(name):
            check_mask(desk, case, expected)
        desk.start_over()


def check_mask(desk: LayersDesk, case: Case, expected: np.ndarray) -> None:
    layer = show(desk, case)

    # By a layer of the user's own, without any transform, that holds the box in world coordinates.
    world = np.array([layer.data_to_world(corner) for corner in on_layer(case)])
    own = desk.viewer.add_shapes([world], shape_type="polygon")
    desk.draw_boxes()
    desk.wait(lambda: desk.painted == [1])
    assert desk.shapes is own
    assert np.array_equal(case.labels(desk.labels.data) == 1, expected)
    assert np.count_nonzero(desk.labels.data) == np.count_nonzero(expected)

    # By the layer that the dock makes, which lies on the image as the image lies in the world.
    desk.viewer.layers.remove(own)
    desk.viewer.layers.selection.active = layer
    desk.draw_boxes()
    points = np.array([desk.shapes.world_to_data(corner) for corner in world])
    desk.shapes.add_polygons(points)
    desk.wait(lambda: desk.painted == [1, 2])
    assert np.array_equal(case.labels(desk.labels.data) == 2, expected)
    assert len(desk.model.encoded) <= 2  # what was on screen while it was set up, and the plane

    # And the labels lie over the image: each of their pixels is where the image's is.
    corner = on_layer(case)[0]
    assert np.allclose(
        desk.labels.data_to_world(desk.labels.world_to_data(layer.data_to_world(corner))),
        layer.data_to_world(corner)[-desk.labels.ndim :],
    )


def test_corrections_and_deletions_are_recognised_there_too(desk: LayersDesk) -> None:
    for name in ("transposed view", "channels in the middle", "channels last", "stack"):
        with named(name):
            check_corrections(desk, CASES[name])
        desk.start_over()


def check_corrections(desk: LayersDesk, case: Case) -> None:
    show(desk, case)
    desk.draw_boxes()
    world = [desk.work.image.data_to_world(corner) for corner in on_layer(case)]
    desk.shapes.add_polygons(np.array([desk.shapes.world_to_data(corner) for corner in world]))
    desk.wait(lambda: desk.painted == [1])
    before = desk.labels.data.copy()
    # A stroke of the eraser on what is on screen: where labels and image meet in the world.
    point = np.argwhere(case.labels(desk.labels.data) == 1)[0]
    spot = [*case.lead, *point, *case.tail]
    index = np.round(desk.labels.world_to_data(desk.work.image.data_to_world(spot))).astype(int)
    desk.labels.data_setitem(tuple(np.array([step]) for step in index), 0)
    assert desk.part(1).corrected
    desk.undo()
    assert not desk.part(1).corrected
    assert np.array_equal(desk.labels.data, before)
    desk.delete_box(1)
    assert not desk.labels.data.any()
    desk.undo()
    assert desk.ids == [1]


def test_the_slider_over_channels_keeps_boxes_and_masks_in_view(desk: LayersDesk) -> None:
    case = CASES["channels in the middle"]
    show(desk, case)
    desk.draw_boxes()
    desk.shapes.add_polygons(
        np.array(
            [desk.shapes.world_to_data(desk.work.image.data_to_world(corner)) for corner in on_layer(case)]
        )
    )
    desk.wait(lambda: desk.painted == [1])
    for channel in (0, 1):
        desk.viewer.dims.set_current_step(1, channel)
        spot = desk.viewer.dims.point
        assert round(desk.labels.world_to_data(spot)[1]) == 0
        assert round(desk.shapes.world_to_data(spot)[1]) == 0


def test_a_flat_shapes_layer_over_a_stack_prompts_the_slice_on_screen(
    desk: LayersDesk, expected: np.ndarray
) -> None:
    show(desk, CASES["stack"])
    layer = desk.work.image
    desk.viewer.add_shapes(
        [corners(BOX)], shape_type="rectangle", scale=layer.scale[1:], translate=layer.translate[1:]
    )
    desk.draw_boxes()
    desk.wait(lambda: desk.painted == [1])
    assert np.array_equal(desk.labels.data[2] == 1, expected)
    desk.delete_box(1)
    desk.undo()
    assert desk.shapes.ndim == 2
    assert np.allclose(np.sort(desk.shapes.data[0], axis=0), np.sort(corners(BOX), axis=0), atol=1e-6)


def test_a_shape_that_crosses_planes_is_refused(desk: LayersDesk) -> None:
    show(desk, CASES["stack"])
    desk.draw_boxes()
    slanted = corners(BOX, 3, [2])
    slanted[2:, 0] = 0
    desk.shapes.add_polygons(slanted)
    assert "crosses several planes" in desk.said[-1]
    desk.settle()
    assert desk.shapes.nshapes == 0


def test_transposing_the_view_costs_no_encode_and_shares_its_objects(
    desk: LayersDesk, expected: np.ndarray
) -> None:
    show(desk, CASES["stack"])
    desk.add_boxes_at((2,), BOX)
    desk.viewer.dims.order = (0, 2, 1)
    desk.settle()
    desk.add_boxes_at((2,), (130, 10, 200, 90))
    assert len(desk.work.document.planes()) == 1
    assert len(desk.model.encoded) <= 2
    assert np.array_equal(desk.labels.data[2] == 1, expected)
