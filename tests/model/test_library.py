"""The user's own decoders: listed, renamed, deleted, exported, imported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.model.catalogue import MODELS
from napari_medsam.model.decoder_file import DecoderInfo, read_info, write_decoder
from napari_medsam.model.library import (
    decoder_path,
    delete_decoder,
    export_decoder,
    find_own,
    free_name,
    import_decoder,
    note_decoder,
    own_decoders,
    rename_decoder,
)
from napari_medsam.model.names import find_model, model_names


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "decoders"
    monkeypatch.setenv("NAPARI_MEDSAM_DECODERS", str(folder))
    return folder


def write(name: str, created: str = "", path: Path | None = None, detail: int = 1) -> Path:
    target = path or decoder_path(name)
    info = DecoderInfo(name, "lite-medsam", "e" * 64, "d" * 64, created, detail)
    write_decoder(target, {"mask_decoder.x": torch.arange(3.0)}, info)
    return target


def test_none_at_first(folder: Path) -> None:
    assert own_decoders() == []
    assert not folder.exists()
    assert model_names() == tuple(MODELS)


def test_newest_first_and_what_cannot_be_read_is_left_out(folder: Path) -> None:
    write("old", "2025-01-01")
    write("new", "2026-01-01")
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    (folder / "notes.txt").write_text("x")
    assert [decoder.name for decoder in own_decoders()] == ["new", "old"]
    assert model_names()[-2:] == ("new", "old")


def test_a_name_finds_the_model_it_belongs_to_and_its_detail() -> None:
    path = write("vessels", detail=8)
    spec = find_model("vessels")
    assert (spec.name, spec.decoder, spec.detail) == ("vessels", path, 8)
    assert (spec.package, spec.sha256) == (MODELS["lite-medsam"].package, MODELS["lite-medsam"].sha256)


def test_a_file_renamed_outside_is_called_by_its_new_name() -> None:
    write("one").rename(decoder_path("two"))
    assert find_own("two").name == "two"
    assert find_model("two").name == "two"


class TestRename:
    def test_the_file_and_what_it_says(self) -> None:
        old = write("one")
        assert rename_decoder("one", "two b").name == "two b"
        assert not old.exists()
        assert read_info(decoder_path("two b")).name == "two b"

    def test_a_taken_name_is_refused(self) -> None:
        write("one"), write("two")
        for taken in ("two", "lite-medsam"):
            with pytest.raises(CheckpointError, match="already"):
                rename_decoder("one", taken)
        assert find_own("one")

    @pytest.mark.parametrize(
        "name", ["", "a/b", "../up", "/abs", "a\\b", ".hidden", "x\0", "x" * 200, "a:b", "end.", "a\n"]
    )
    def test_a_name_that_is_no_file_name_is_refused(self, name: str, tmp_path: Path) -> None:
        write("one")
        with pytest.raises(CheckpointError, match="cannot be the name of a decoder"):
            rename_decoder("one", name)
        assert [path.name for path in (tmp_path / "decoders").iterdir()] == ["one.safetensors"]

    def test_a_decoder_that_is_not_there(self) -> None:
        write("one")
        for act in (
            lambda: rename_decoder("gone", "x"),
            lambda: delete_decoder("gone"),
            lambda: note_decoder("gone", ""),
        ):
            with pytest.raises(CheckpointError, match="Choose one of: one"):
                act()


def test_notes_stay_with_the_file() -> None:
    write("one")
    note_decoder("one", 'good "on" Tuesdays\n')
    assert find_own("one").info.notes == 'good "on" Tuesdays\n'


def test_a_deleted_decoder_is_gone() -> None:
    write("one")
    delete_decoder("one")
    assert own_decoders() == []
    with pytest.raises(ModelError):
        find_model("one")


class TestFreeName:
    def test_a_number_behind_a_taken_one(self) -> None:
        write("cells"), write("cells 2")
        assert free_name("cells") == "cells 3"
        assert free_name("other", taken=["other"]) == "other 2"

    def test_a_models_name_is_never_free(self) -> None:
        assert free_name("lite-medsam") == "lite-medsam 2"

    @pytest.mark.parametrize("wanted", ["a/b:c", "../../etc", "", " . ", "é*ß", "x" * 500, "(x)", "-x", "+1"])
    def test_it_is_always_a_name(self, wanted: str, folder: Path) -> None:
        assert decoder_path(free_name(wanted)).parent == folder


class TestAway:
    def test_to_a_folder_and_back(self, tmp_path: Path) -> None:
        path = write("one")
        (tmp_path / "away").mkdir()
        exported = export_decoder("one", tmp_path / "away")
        assert exported.read_bytes() == path.read_bytes()
        back = import_decoder(exported)
        assert back.name == "one 2"
        assert read_info(back.path).name == "one 2"

    def test_to_a_file(self, tmp_path: Path) -> None:
        write("one")
        target = tmp_path / "a" / "b.safetensors"
        assert export_decoder("one", target) == target
        assert read_info(target).name == "one"

    def test_a_file_that_is_no_decoder_is_not_taken_in(self, tmp_path: Path) -> None:
        bad = tmp_path / "x.safetensors"
        bad.write_bytes(b"no")
        with pytest.raises(CheckpointError):
            import_decoder(bad)
        assert own_decoders() == []

    def test_a_name_inside_a_file_cannot_lead_out_of_the_folder(self, tmp_path: Path, folder: Path) -> None:
        taken = import_decoder(write("../../evil", path=tmp_path / "x.safetensors"))
        assert taken.path.parent == folder

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        write("one")
        (tmp_path / "taken").write_text("")
        with pytest.raises(CheckpointError, match="cannot be copied"):
            export_decoder("one", tmp_path / "taken" / "x" / "y.safetensors")
