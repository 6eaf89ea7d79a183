"""Every kind of pixel gives a mask and stays as it was; every contrast choice reaches the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planes import filled, named
from ui_desk import Desk

from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.field import read_field, whole_field
from napari_medsam.image.plane import Plane

BOX = (40, 60, 120, 180)
FLAT = np.random.default_rng(5).random((256, 256))


def with_nan() -> np.ndarray:
    pixels = (FLAT * 7 - 3).astype(np.float32)
    pixels[::7, ::5] = np.nan
    pixels[3, 3] = np.inf
    return pixels


PIXELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rgb": (lambda: (FLAT[..., None] * [255, 90, 30]).astype(np.uint8), {"rgb": True}),
    "rgba": (lambda: (FLAT[..., None] * [255, 90, 30, 255]).astype(np.uint8), {"rgb": True}),
    "rgb float": (lambda: FLAT[..., None] * [1.0, 0.5, 0.2], {"rgb": True}),
    "uint8": (lambda: (FLAT * 255).astype(np.uint8), {}),
    "uint16": (lambda: (FLAT * 4000 + 300).astype(np.uint16), {}),
    "big-endian uint16": (lambda: (FLAT * 4000).astype(">u2"), {}),
    "int16": (lambda: (FLAT * 3000 - 1024).astype(np.int16), {}),
    "float with nan": (with_nan, {}),
    "float64": (lambda: FLAT * 1e-6, {}),
    "bool": (lambda: FLAT > 0.5, {}),
    "constant": (lambda: np.full((256, 256), 7, np.uint8), {}),
    "2 channels": (lambda: (np.stack([FLAT, 1 - FLAT]) * 255).astype(np.uint8), {"channel": 0}),
    "5 channels": (lambda: (FLAT * np.arange(1, 6)[:, None, None]).astype(np.float32), {"channel": 0}),
}


def test_each_kind_gives_a_mask_and_is_not_changed(desk: Desk) -> None:
    for name, (make, options) in PIXELS.items():
        with named(name):
            check_pixels(desk, make(), dict(options), flat=name == "constant")
        desk.start_over()


def check_pixels(desk: Desk, pixels: np.ndarray, options: dict[str, Any], *, flat: bool) -> None:
    channel = options.pop("channel", None)
    before = pixels.tobytes()
    layer = desk.viewer.add_image(pixels, **options)
    limits = list(layer.contrast_limits)
    desk.controller.set_channel_axis(channel)
    desk.add_boxes(BOX)
    assert np.array_equal(desk.mask(1), filled((256, 256), BOX))
    seen = desk.model.encoded[-1]
    assert np.isfinite(seen).all()
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert (seen.std() > 0.05) != flat
    assert np.shares_memory(layer.data, pixels)
    assert pixels.tobytes() == before
    assert list(layer.contrast_limits) == limits


def seen_with(pixels: np.ndarray, contrast: Contrast, **options: Any) -> np.ndarray:
    """The tensor that the model must get for a contrast."""
    from fake_medsam import FakeMedSAM

    model = FakeMedSAM()
    plane = Plane.from_array(pixels, **options)
    window = resolve_contrast(plane, contrast)
    return model.prepare(read_field(plane, whole_field(plane.shape), window, model.frame))


class TestContrast:
    @pytest.fixture
    def ct(self, desk: Desk) -> tuple[Desk, np.ndarray]:
        """A desk with a plane of Hounsfield units, and one box on it."""
        pixels = (FLAT * 3000 - 1200).astype(np.int16)
        desk.open(pixels)
        desk.add_boxes(BOX)
        return desk, pixels

    def again(self, desk: Desk, count: int = 2) -> None:
        """Wait until the box was decoded anew."""
        desk.wait(lambda: desk.painted == [1] * count)

    def test_presets(self, ct: tuple[Desk, np.ndarray]) -> None:
        desk, pixels = ct
        for count, name in enumerate(("ct", "ct-soft", "ct-lung", "ct-bone"), start=2):
            with named(name):
                desk.dock.image.contrast.mode.setCurrentIndex(desk.dock.image.contrast.mode.findData(name))
                self.again(desk, count)
                assert np.array_equal(desk.model.encoded[-1], seen_with(pixels, Contrast.parse(name)))
                assert len(desk.model.encoded) == count

    def test_auto_comes_back_from_the_cache(self, ct: tuple[Desk, np.ndarray]) -> None:
        desk, pixels = ct
        desk.dock.image.contrast.mode.setCurrentIndex(desk.dock.image.contrast.mode.findData("ct"))
        self.again(desk)
        desk.dock.image.contrast.mode.setCurrentIndex(desk.dock.image.contrast.mode.findData("auto"))
        self.again(desk, 3)
        assert len(desk.model.encoded) == 2
        assert np.array_equal(desk.model.encoded[0], seen_with(pixels, Contrast()))

    def test_manual_limits(self, ct: tuple[Desk, np.ndarray]) -> None:
        desk, pixels = ct
        choice = desk.dock.image.contrast
        choice.mode.setCurrentIndex(choice.mode.findData("manual"))
        self.again(desk)
        assert not choice.limits.isHidden()
        choice.low.setValue(-300)
        self.again(desk, 3)
        choice.high.setValue(900)
        self.again(desk, 4)
        expected = seen_with(pixels, Contrast("window", (-300.0, 900.0)))
        assert np.array_equal(desk.model.encoded[-1], expected)

    def test_the_layers_limits_are_followed(self, ct: tuple[Desk, np.ndarray]) -> None:
        desk, pixels = ct
        layer = desk.work.image
        layer.contrast_limits = (-100, 400)
        desk.settle()
        assert len(desk.model.encoded) == 1
        desk.dock.image.contrast.mode.setCurrentIndex(desk.dock.image.contrast.mode.findData("layer"))
        self.again(desk)
        assert np.array_equal(desk.model.encoded[-1], seen_with(pixels, Contrast("window", (-100.0, 400.0))))
        layer.contrast_limits = (0, 800)
        self.again(desk, 3)
        assert np.array_equal(desk.model.encoded[-1], seen_with(pixels, Contrast("window", (0.0, 800.0))))
        assert list(layer.contrast_limits) == [0, 800]

    def test_the_layers_limits_are_those_of_each_image(self, ct: tuple[Desk, np.ndarray]) -> None:
        desk, _ = ct
        first = desk.work.image
        first.contrast_limits = (-100, 400)
        desk.dock.image.contrast.mode.setCurrentIndex(desk.dock.image.contrast.mode.findData("layer"))
        self.again(desk)
        other = desk.open((FLAT * 50).astype(np.uint8), contrast_limits=(5, 25))
        expected = seen_with(np.asarray(other.data), Contrast("window", (5.0, 25.0)))
        assert np.array_equal(desk.model.encoded[-1], expected)
        assert desk.painted == [1, 1]
        desk.viewer.layers.selection.active = first
        self.again(desk, 3)
        assert desk.session.settings.contrast.window == (-100.0, 400.0)

    def test_a_corrected_mask_is_not_predicted_anew(self, ct: tuple[Desk, np.ndarray]) -> None:
        desk, _ = ct
        desk.paint(1, slice(0, 10), slice(0, 10))
        kept = desk.labels.data.copy()
        desk.dock.image.contrast.mode.setCurrentIndex(desk.dock.image.contrast.mode.findData("ct"))
        desk.wait(lambda: len(desk.model.encoded) == 2)
        desk.settle()
        assert desk.painted == [1]
        assert np.array_equal(desk.labels.data, kept)


class TestChannels:
    def test_the_channels_typed_in_the_dock_reach_the_model(self, desk: Desk) -> None:
        pixels = (np.stack([np.roll(FLAT, 17 * c) for c in range(5)]) * 255).astype(np.uint8)
        desk.open(pixels)
        axis = desk.dock.image.channels.axis
        axis.setCurrentIndex(axis.findData(0))
        desk.add_boxes(BOX)
        assert np.array_equal(desk.model.encoded[-1], seen_with(pixels, Contrast(), channel_axis=0))
        desk.dock.image.channels.channels.setText("4, 2")
        desk.dock.image.channels.channels.editingFinished.emit()
        desk.wait(lambda: desk.painted == [1, 1])
        expected = seen_with(pixels, Contrast(channels=(4, 2)), channel_axis=0)
        assert np.array_equal(desk.model.encoded[-1], expected)

    def test_a_channel_that_is_not_there_is_told(self, desk: Desk) -> None:
        desk.open((np.stack([FLAT] * 2) * 255).astype(np.uint8))
        desk.controller.set_channel_axis(0)
        desk.dock.image.channels.channels.setText("7")
        desk.dock.image.channels.channels.editingFinished.emit()
        desk.wait(lambda: any("7" in text for text in desk.said))
        desk.dock.image.channels.channels.setText("1")
        desk.dock.image.channels.channels.editingFinished.emit()
        desk.add_boxes(BOX)

    def test_the_channel_row_shows_only_where_there_is_a_choice(self, desk: Desk) -> None:
        desk.open((FLAT * 255).astype(np.uint8))
        assert desk.dock.image.channels.isHidden()
        desk.open((np.stack([FLAT] * 5) * 255).astype(np.uint8))
        assert not desk.dock.image.channels.isHidden()
        desk.open(np.zeros((64, 64, 3), np.uint8), rgb=True)
        assert desk.dock.image.channels.isHidden()
