from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_medsam.errors import CheckpointError, ImageError
from napari_medsam.image.field import Field, Frame
from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.families.registry import FAMILIES, settle_family
from napari_medsam.model.names import find_model


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 200, (height, width, 3), dtype=np.uint8)


def test_frames_follow_each_family() -> None:
    assert FAMILIES["lite-medsam"].frame(256) == Frame(256, False, "area")
    assert FAMILIES["medsam"].frame(1024) == Frame(1024, True, "bicubic")
    assert FAMILIES["sam"].frame(1024) == Frame(1024, False, "bilinear")


@pytest.mark.parametrize(("height", "width"), [(256, 160), (100, 256), (256, 256)])
def test_lite_is_scaled_to_the_unit_range_then_padded(height: int, width: int) -> None:
    image = pixels(height, width)
    # The published order: min-max of the resized image in double, zeros after it, then float.
    scaled = (image - image.min()) / np.clip(float(image.max()) - float(image.min()), 1e-8, None)
    expected = np.pad(scaled, ((0, 256 - height), (0, 256 - width), (0, 0))).astype(np.float32)
    out = FAMILIES["lite-medsam"].prepare(256, image)
    np.testing.assert_array_equal(out, expected.transpose(2, 0, 1))
    assert out.flags.c_contiguous
    assert out.dtype == np.float32


@pytest.mark.parametrize("family", ["lite-medsam", "medsam"])
def test_a_constant_image_gives_zeros(family: str) -> None:
    assert not FAMILIES[family].prepare(256, np.full((256, 256, 3), 77, np.uint8)).any()


def test_sam_uses_its_colour_statistics_and_pads_with_zeros_after_them() -> None:
    image = pixels(192, 256)
    out = FAMILIES["sam"].prepare(256, image)
    expected = (image - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(out[:, :192], expected.transpose(2, 0, 1), rtol=1e-6)
    assert not out[:, 192:].any()


@pytest.mark.parametrize(
    "bad", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 300, 3), np.uint8)]
)
def test_pixels_that_do_not_fit_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8"):
        FAMILIES["lite-medsam"].prepare(256, bad)


def test_boxes_reach_the_frame_with_the_medsam_squash() -> None:
    field, frame = Field(0, 0, 512, 256), FAMILIES["medsam"].frame(1024)
    np.testing.assert_allclose(field.to_frame([[0, 0, 256, 128]], frame), [[0, 0, 512, 512]])


def vit_state(width: int) -> dict[str, torch.Tensor]:
    return {
        "mask_decoder.iou_token.weight": torch.zeros(1, 256),
        "image_encoder.pos_embed": torch.zeros(1, 64, 64, width),
    }


def local(name: str) -> ModelSpec:
    return ModelSpec(name, "auto", "auto", name, name)


@pytest.mark.parametrize(
    ("name", "width", "family", "arch"),
    [
        ("mine.pth", 768, "medsam", "vit_b"),
        ("sam_finetuned.pth", 768, "sam", "vit_b"),
        ("mine.pth", 1024, "sam", "vit_l"),
        ("mine.pth", 1280, "sam", "vit_h"),
        ("medsam_large.pth", 1024, "medsam", "vit_l"),
    ],
)
def test_local_vit_files_are_told_apart(name: str, width: int, family: str, arch: str) -> None:
    spec = settle_family(local(name), vit_state(width))
    assert (spec.family, spec.arch, spec.input_size) == (family, arch, 1024)
    assert spec.prompts == (frozenset({"box", "point"}) if family == "sam" else frozenset({"box"}))


def test_a_renamed_copy_of_the_published_sam_is_known_by_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copy.pth"
    path.write_bytes(b"weights")
    known = replace(find_model("sam-vit-b"), sha256=hashlib.sha256(b"weights").hexdigest(), size=7)
    monkeypatch.setattr("napari_medsam.model.families.sam.MODELS", {"sam-vit-b": known})
    assert settle_family(find_model(path), vit_state(768)).family == "sam"
    path.write_bytes(b"weighty")
    assert settle_family(find_model(path), vit_state(768)).family == "medsam"


def test_a_local_lite_file_is_recognised(tiny_state: dict[str, torch.Tensor]) -> None:
    spec = settle_family(local("mine.pth"), tiny_state)
    assert (spec.family, spec.arch, spec.input_size) == ("lite-medsam", "tiny_vit", 256)


@pytest.mark.parametrize("state", [{"conv.weight": torch.zeros(1)}, vit_state(384)])
def test_foreign_weights_are_refused_by_name(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        settle_family(local("other.pth"), state)


def test_a_known_name_with_other_weights_is_refused() -> None:
    spec = replace(find_model("sam-vit-b"), sha256=None)
    with pytest.raises(CheckpointError, match="vit_l"):
        settle_family(spec, vit_state(1024))
