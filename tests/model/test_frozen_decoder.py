"""A decoder file that version 0.1 wrote is read as it was meant: `tests/fixtures/v1` says what it holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from napari_medsam.errors import CheckpointError
from napari_medsam.evaluate.verdict import Scores
from napari_medsam.model.decoder_file import CurvePoint, is_decoder, read_decoder, read_info, rewrite_info
from napari_medsam.model.library import decoder_path, find_own, own_decoders
from napari_medsam.model.names import find_model

FROZEN = Path(__file__).parents[1] / "fixtures" / "v1" / "decoder.safetensors"
ENCODER = "79d8" * 16


def test_what_it_says_of_itself() -> None:
    assert is_decoder(FROZEN)
    info = read_info(FROZEN)
    assert (info.name, info.base, info.detail) == ("nuclei 2", "lite-medsam", 4)
    assert (info.encoder_hash, info.decoder_hash) == (ENCODER, "0123" * 16)
    assert info.created == "2026-01-02T03:04:05+00:00"
    assert (info.dataset, info.dataset_id) == ("/data/nuclei", "4567" * 16)
    assert info.cases == {"train": ("2D_a_1", "2D_b_2"), "val": ("2D_c_3",), "test": ("2D_d_4", "3D_e_5")}
    assert info.classes == ("cell", "Zellkern ä")
    assert info.prompts == ("box", "point")
    assert info.notes == "line one\nline two"


def test_how_it_was_trained_and_judged() -> None:
    info = read_info(FROZEN)
    assert info.curve == (
        CurvePoint(1, 0.5, 0.75, 2.5),
        CurvePoint(2, 0.25, None, 5.0),
    )
    assert (info.config["visits"], info.config["schedule"], info.config["seed"]) == (500, "constant", 11)
    assert info.verdict is not None
    assert (info.verdict.decision, info.verdict.objects, info.verdict.cases) == ("adopt", 6, 3)
    assert info.verdict.mean["new"] == Scores(0.9380260996233635, 0.9811739815296091)
    assert len(info.verdict.pictures) == 6


def test_its_weights_go_on_the_prompt_encoder_of_its_model() -> None:
    base = {
        "mask_decoder.iou_token.weight": torch.zeros(1, 8),
        "prompt_encoder.point_embeddings.0.weight": torch.full((1, 8), 3.0),
    }
    read = read_decoder(FROZEN, ENCODER, base)
    assert torch.equal(read["mask_decoder.iou_token.weight"], torch.arange(8.0).reshape(1, 8) / 4)
    assert torch.equal(read["mask_decoder.mask_tokens.weight"], -torch.arange(16.0).reshape(2, 8))
    assert torch.equal(read["prompt_encoder.point_embeddings.0.weight"], torch.full((1, 8), 3.0))
    with pytest.raises(CheckpointError, match="was trained on the encoder"):
        read_decoder(FROZEN, "f" * 64, base)


def test_it_is_one_of_the_users_decoders() -> None:
    path = decoder_path("nuclei 2")
    path.parent.mkdir(parents=True)
    shutil.copy(FROZEN, path)
    assert [decoder.name for decoder in own_decoders()] == ["nuclei 2"]
    assert find_own("nuclei 2").info == read_info(FROZEN)
    spec = find_model("nuclei 2")
    assert (spec.base, spec.detail, spec.decoder) == ("lite-medsam", 4, path)
    assert spec.prompts == {"box", "point"}


def test_new_notes_leave_all_else(tmp_path: Path) -> None:
    path = Path(shutil.copy(FROZEN, tmp_path / "copy.safetensors"))
    rewrite_info(path, notes="other")
    old, new = read_info(FROZEN), read_info(path)
    assert (new.notes, new.verdict, new.cases, new.curve) == ("other", old.verdict, old.cases, old.curve)
    assert new.config == old.config
