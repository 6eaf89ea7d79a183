"""What goes wrong is said, and the next prompt works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_medsam import FakeMedSAM
from planes import filled
from ui_desk import Desk

from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.session.settings import Settings
from napari_medsam.ui.dock import controls

A, B = (40, 60, 120, 180), (150, 20, 220, 90)


def test_a_3d_view_is_refused_with_the_way_out(desk: Desk, image: np.ndarray) -> None:
    desk.open(np.stack([image] * 3))
    desk.viewer.dims.ndisplay = 3
    desk.wait(lambda: "2D view" in desk.statuses[-1])
    desk.dock.tools.draw.click()
    assert "Ctrl+Y" in desk.said[-1]
    assert desk.work.prompts is None
    desk.viewer.dims.ndisplay = 2
    desk.wait(lambda: "ready" in desk.statuses[-1])
    desk.add_boxes(A)


def test_no_image_is_said(desk: Desk) -> None:
    desk.dock.tools.draw.click()
    assert "Open an image first" in desk.said[-1]
    assert desk.dock.desk.export(desk.folder) is None


@pytest.mark.parametrize("error", [ModelError("the model broke: start again"), RuntimeError("CUDA broke")])
def test_a_failed_encode_is_said_and_the_next_prompt_works(
    desk: Desk, image: np.ndarray, error: Exception
) -> None:
    desk.model.encode_error = error
    desk.viewer.add_image(image, name="cells")
    desk.wait(lambda: bool(desk.said))
    assert "broke" in desk.said[-1]
    assert "broke" in desk.statuses[-1]
    desk.add_boxes(A)
    assert np.array_equal(desk.mask(1), filled(image.shape, A))


@pytest.mark.parametrize("error", [ModelError("decoder broke: start again"), RuntimeError("CUDA broke")])
def test_a_failed_decode_is_said_and_marks_its_object(
    desk: Desk, image: np.ndarray, error: Exception
) -> None:
    desk.open(image)
    desk.model.decode_error = error
    desk.add_boxes(A, wait=False)
    desk.wait(lambda: bool(desk.said))
    assert "broke" in desk.said[-1]
    assert desk.part(1).problem
    assert desk.shapes.features["label"][0].endswith("!")
    desk.add_boxes(B)
    desk.move_box(1, (40, 60, 100, 100))
    assert desk.part(1).problem is None
    assert np.array_equal(desk.mask(1), filled(image.shape, (40, 60, 100, 100)))


def test_a_model_that_cannot_be_loaded_is_said_and_tried_again(open_desk: object, image: np.ndarray) -> None:
    desk = open_desk(errors=[CheckpointError("lite-medsam: the file is torn. Get it again.")] * 2)  # type: ignore[operator]
    desk.viewer.add_image(image)
    desk.wait(lambda: any("torn" in text for text in desk.said))
    desk.wait(lambda: len(desk.loader.asked) == 2)
    desk.add_boxes(A)
    assert np.array_equal(desk.mask(1), filled(image.shape, A))


def test_another_model_answers_all_boxes_anew(open_desk: object, image: np.ndarray) -> None:
    models = {
        "lite-medsam": FakeMedSAM(),
        "sam-vit-b": FakeMedSAM(name="sam-vit-b", encoder_hash="f" * 64, iou=0.5),
    }
    desk = open_desk(models=models)  # type: ignore[operator]
    desk.open(image)
    desk.add_boxes(A)
    desk.dock.image.model.name.setCurrentText("sam-vit-b")
    desk.wait(lambda: desk.painted == [1, 1])
    assert desk.loader.asked == ["lite-medsam", "sam-vit-b"]
    assert models["sam-vit-b"].decoded == [A]
    assert len(models["sam-vit-b"].encoded) == 1
    assert models["lite-medsam"].closed
    assert desk.shapes.features["label"][0] == "1 object 0.50"
    assert desk.session.settings == Settings("sam-vit-b", field="whole")


def test_labels_too_small_for_an_object_are_said(desk: Desk, image: np.ndarray) -> None:
    desk.open(image)
    labels = desk.viewer.add_labels(np.zeros(image.shape, np.uint8))
    desk.work.painting.attach(labels)
    desk.work.document.reserve(255)
    desk.add_boxes(A, wait=False)
    desk.wait(lambda: bool(desk.said))
    assert "up to 255" in desk.said[-1]
    assert not labels.data.any()
    assert desk.part(256).problem
    desk.viewer.layers.remove(labels)
    desk.move_box(256, B)
    assert np.array_equal(desk.mask(256), filled(image.shape, B))


def test_labels_of_the_users_own_type_are_used(desk: Desk, image: np.ndarray) -> None:
    desk.open(image)
    own = np.zeros(image.shape, np.uint8)
    own[:20, :20] = 6
    labels = desk.viewer.add_labels(own)
    desk.work.painting.attach(labels)
    assert desk.add_boxes(A) == [7]
    assert labels.data.dtype == np.uint8
    assert np.array_equal(labels.data == 7, filled(image.shape, A))
    assert (labels.data[:20, :20] == 6).all()


def test_a_checkpoint_file_is_chosen_in_the_dock(
    open_desk: object, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = str(tmp_path / "own.pth")
    desk = open_desk(models={"lite-medsam": FakeMedSAM(), own: FakeMedSAM(name="own")})  # type: ignore[operator]
    desk.open(image)
    choice = desk.dock.image.model
    monkeypatch.setattr(controls.QFileDialog, "getOpenFileName", lambda *_: ("", ""))
    choice.name.setCurrentText(controls.FROM_FILE)
    assert choice.name.currentText() == "lite-medsam"  # nothing picked: nothing changed
    monkeypatch.setattr(controls.QFileDialog, "getOpenFileName", lambda *_: (own, ""))
    choice.name.setCurrentText(controls.FROM_FILE)
    assert choice.name.currentText() == "own.pth"
    desk.wait(lambda: desk.loader.asked[-1] == own)
    choice.device.setCurrentText("cpu")
    assert (desk.session.settings.model, desk.session.settings.device) == (own, "cpu")
    desk.wait(lambda: desk.session.model is not None)
