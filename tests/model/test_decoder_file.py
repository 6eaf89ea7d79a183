"""Decoder files: what comes back, and what is refused."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_medsam.errors import CheckpointError
from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.model.catalogue import same_encoder, without_decoder
from napari_medsam.model.decoder_file import (
    HEADER,
    CurvePoint,
    DecoderInfo,
    is_decoder,
    read_decoder,
    read_info,
    rewrite_info,
    write_decoder,
)
from napari_medsam.model.local import MedSAM, load_decoder
from napari_medsam.model.names import find_model


def changed(model: MedSAM, by: float = 0.01) -> dict[str, torch.Tensor]:
    """The model's decoder weights, the mask decoder's a little different."""
    return {
        name: value + by if name.startswith("mask_decoder.") else value
        for name, value in model.decoder_state().items()
    }


def info_of(model: MedSAM, **more: object) -> DecoderInfo:
    plain = DecoderInfo("mine", "lite-medsam", model.encoder_hash, "d" * 64, "2026-01-02T03:04:05+00:00")
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.fixture
def file(lite: MedSAM, tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    write_decoder(path, changed(lite), info_of(lite))
    return path


def with_header(path: Path, header: str) -> Path:
    """A safetensors file with this text as our header."""
    save_file({"mask_decoder.x": torch.zeros(1)}, path, metadata={HEADER: header})
    return path


class TestRoundTrip:
    def test_weights_and_info_come_back(self, lite: MedSAM, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "mine.safetensors"
        state = changed(lite)
        info = info_of(
            lite,
            detail=4,
            dataset="somewhere",
            dataset_id="abc",
            cases={"train": ("a", "b"), "val": (), "test": ("c",)},
            classes=("cell", "Zellkern ä"),
            config={"seed": 3},
            curve=(CurvePoint(1, 0.5),),
            verdict=Verdict(decision="keep", reason="no"),
            notes="line one\nline two",
        )
        write_decoder(path, state, info)
        assert read_info(path) == info
        read = read_decoder(path, lite.encoder_hash, lite.decoder_state())
        assert read.keys() == state.keys()
        assert all(torch.equal(read[name], state[name]) for name in state)

    def test_only_the_mask_decoder_is_in_the_file(self, lite: MedSAM, file: Path) -> None:
        base = {name: torch.zeros_like(value) for name, value in lite.decoder_state().items()}
        read = read_decoder(file, lite.encoder_hash, base)
        assert not read["prompt_encoder.point_embeddings.0.weight"].any()
        assert read["mask_decoder.mask_tokens.weight"].any()

    def test_it_decodes_differently_on_the_same_embeddings(self, lite: MedSAM, file: Path) -> None:
        tuned = load_decoder(lite, file)
        assert (tuned.encoder_hash, tuned.precision) == (lite.encoder_hash, lite.precision)
        assert tuned.decoder_hash != lite.decoder_hash
        assert (tuned.name, tuned.spec.decoder) == ("mine", file)
        features = np.random.default_rng(0).normal(size=(256, 64, 64)).astype(np.float16)
        box = np.array([[20, 20, 200, 200]], np.float32)
        before = lite.decode(features, box, key="k").logits
        assert not np.allclose(tuned.decode(features, box, key="k").logits, before)
        assert np.array_equal(lite.decode(features, box, key="k").logits, before)

    def test_an_info_that_is_rewritten_leaves_the_weights(self, lite: MedSAM, file: Path) -> None:
        before = read_decoder(file, lite.encoder_hash, lite.decoder_state())
        rewrite_info(file, notes="good on Tuesdays", verdict=Verdict(decision="adopt"))
        after = read_decoder(file, lite.encoder_hash, lite.decoder_state())
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert read_info(file).notes == "good on Tuesdays"

    def test_the_registry_finds_it_by_path(self, file: Path) -> None:
        spec, base = find_model(file), find_model("lite-medsam")
        assert (spec.name, spec.decoder, spec.family) == ("mine", file, "lite-medsam")
        assert same_encoder(spec, base)
        assert not same_encoder(spec, find_model("sam-vit-b"))
        assert without_decoder(spec) == "lite-medsam" == without_decoder(base)


class TestRefused:
    def test_another_encoder(self, lite: MedSAM, file: Path) -> None:
        with pytest.raises(CheckpointError, match="was trained on the encoder") as caught:
            read_decoder(file, "f" * 64, lite.decoder_state())
        assert str(file) in str(caught.value)
        assert "lite-medsam" in str(caught.value)

    @pytest.mark.parametrize("keep", [0, 7, 200, 0.5, -1])
    def test_a_file_cut_short(self, lite: MedSAM, file: Path, keep: float) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
        assert not is_decoder(file)
        with pytest.raises(CheckpointError, match=r"mine\.safetensors"):
            read_decoder(file, lite.encoder_hash, lite.decoder_state())

    def test_a_file_that_is_missing_or_a_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "gone.safetensors", tmp_path):
            with pytest.raises(CheckpointError, match="missing or damaged"):
                read_info(path)

    def test_a_foreign_safetensors_file(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        save_file({"x": torch.zeros(3)}, path, metadata={"format": "pt"})
        assert not is_decoder(path)
        with pytest.raises(CheckpointError, match="is not a decoder file of napari-medsam"):
            read_info(path)

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "{",
            "[]",
            "null",
            '"text"',
            "{}",
            '{"version": 1}',
            '{"version": "x", "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": ""}',
            '{"version": 99, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": ""}',
            '{"version": 1, "name": 3, "base": "b", "encoder_hash": "", "decoder_hash": ""}',
            '{"version": 1, "name": "a", "base": ["b"], "encoder_hash": "", "decoder_hash": ""}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "cases": 7}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "cases": {"train": 7}}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "detail": "many"}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "detail": 1e99}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "detail": -3}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "verdict": [1]}',
            '{"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": "", "created": 5}',
            "[" * 100_000,
        ],
    )
    def test_a_hostile_header(self, tmp_path: Path, header: str) -> None:
        path = with_header(tmp_path / "bad.safetensors", header)
        assert not is_decoder(path)
        with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
            read_info(path)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"detail": "4"}, "detail should be a valid integer, not '4'"),
            ({"cases": {"train": ["a", 3]}}, r"cases\.train\[1\] should be a valid string, not 3"),
            ({"curve": [{"epoch": 1, "loss": None}]}, r"curve\[0\]\.loss should be a valid number"),
            ({"verdict": {"mean": {"new": {"dsc": 1.0}}}}, r"verdict\.mean\.new\.nsd is missing"),
            (
                {"verdict": {"classes": [{"class": 1, "objects": 2}]}},
                r"verdict\.classes\[0\]\.class should be",
            ),
        ],
    )
    def test_a_wrong_field_of_a_header_is_named(
        self, tmp_path: Path, change: dict[str, object], said: str
    ) -> None:
        sound = {"version": 1, "name": "a", "base": "b", "encoder_hash": "", "decoder_hash": ""}
        assert read_info(with_header(tmp_path / "good.safetensors", json.dumps(sound))).name == "a"
        with pytest.raises(CheckpointError, match=said):
            read_info(with_header(tmp_path / "bad.safetensors", json.dumps({**sound, **change})))

    def test_a_header_that_promises_more_than_there_is(self, lite: MedSAM, file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(struct.pack("<Q", 2**62) + content[8:])
        with pytest.raises(CheckpointError):
            read_decoder(file, lite.encoder_hash, lite.decoder_state())

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, lite: MedSAM, tmp_path: Path, value: float) -> None:
        state = changed(lite)
        state["mask_decoder.iou_token.weight"][0, 0] = value
        path = tmp_path / "nan.safetensors"
        write_decoder(path, state, info_of(lite))
        with pytest.raises(CheckpointError, match=r"not finite \(mask_decoder.iou_token.weight\)"):
            read_decoder(path, lite.encoder_hash, lite.decoder_state())

    def test_weights_that_do_not_fit(self, lite: MedSAM, tmp_path: Path) -> None:
        state = changed(lite)
        state["mask_decoder.iou_token.weight"] = torch.zeros(2, 3)
        path = tmp_path / "odd.safetensors"
        write_decoder(path, state, info_of(lite))
        with pytest.raises(CheckpointError, match=r"odd\.safetensors"):
            load_decoder(lite, path)

    def test_a_folder_that_cannot_be_written(self, lite: MedSAM, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(CheckpointError, match="cannot be written"):
            write_decoder(tmp_path / "taken" / "x.safetensors", changed(lite), info_of(lite))

    def test_an_info_that_is_no_json_is_not_written(self, lite: MedSAM, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_decoder(
                tmp_path / "x.safetensors", changed(lite), info_of(lite, config={"lr": float("nan")})
            )
        assert list(tmp_path.iterdir()) == []


def test_the_header_is_plain_json(file: Path) -> None:
    size = struct.unpack("<Q", file.read_bytes()[:8])[0]
    header = json.loads(file.read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"][HEADER])["name"] == "mine"
