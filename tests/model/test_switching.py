"""Another decoder of the same model: no new process, and the old answers come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_medsam.errors import CheckpointError
from napari_medsam.model.decoder_file import DecoderInfo, write_decoder
from napari_medsam.model.holder import Choice, ModelHolder
from napari_medsam.model.library import decoder_path
from napari_medsam.model.local import MedSAM
from napari_medsam.model.remote import RemoteMedSAM, start_model


class Kept:
    """A model that knows the decoders `family` of its encoder."""

    def __init__(self, name: str, family: tuple[str, ...] = (), problem: Exception | None = None) -> None:
        self.name, self.family, self.problem = name, family, problem
        self.alive, self.closed = True, False

    def switched(self, name: str) -> Kept | None:
        if self.problem is not None:
            raise self.problem
        return Kept(name, self.family) if name in self.family else None

    def close(self) -> None:
        self.closed = True


class Loader:
    def __init__(self) -> None:
        self.made: list[Kept] = []

    def __call__(self, name: str, **_: Any) -> Kept:
        self.made.append(Kept(name, ("base", "mine")))
        return self.made[-1]


@pytest.fixture
def loader() -> Loader:
    return Loader()


def holder_of(loader: Loader) -> tuple[ModelHolder, list[str]]:
    told: list[str] = []
    holder = ModelHolder(loader, Choice("base"), lambda model: told.append(model.name))  # type: ignore[arg-type]
    holder.get()
    return holder, told


class TestHolder:
    def test_another_decoder_is_taken_from_the_model_that_is_there(self, loader: Loader) -> None:
        holder, told = holder_of(loader)
        assert holder.choose(Choice("mine"))
        assert holder.current is None
        assert holder.get().name == "mine"
        assert (len(loader.made), loader.made[0].closed) == (1, False)
        holder.choose(Choice("base"))
        assert holder.get().name == "base"
        assert told == ["base", "mine", "base"]

    def test_another_model_is_loaded(self, loader: Loader) -> None:
        holder, _ = holder_of(loader)
        holder.choose(Choice("other"))
        assert holder.get().name == "other"
        assert loader.made[0].closed

    @pytest.mark.parametrize("choice", [Choice("mine", "cuda"), Choice("mine", backend="torch")])
    def test_another_device_or_backend_is_loaded(self, loader: Loader, choice: Choice) -> None:
        holder, _ = holder_of(loader)
        holder.choose(choice)
        holder.get()
        assert [kept.name for kept in loader.made] == ["base", "mine"]

    def test_a_model_that_died_is_loaded(self, loader: Loader) -> None:
        holder, _ = holder_of(loader)
        loader.made[0].alive = False
        holder.choose(Choice("mine"))
        holder.get()
        assert [kept.name for kept in loader.made] == ["base", "mine"]

    def test_a_decoder_that_is_refused_leaves_the_model_for_the_way_back(self, loader: Loader) -> None:
        holder, _ = holder_of(loader)
        loader.made[0].problem = CheckpointError("damaged")
        holder.choose(Choice("mine"))
        with pytest.raises(CheckpointError, match="damaged"):
            holder.get()
        assert not loader.made[0].closed
        holder.choose(Choice("base"))
        assert holder.get() is loader.made[0]  # type: ignore[comparison-overlap]
        assert len(loader.made) == 1


@pytest.fixture(scope="module")
def remote_model() -> Iterator[RemoteMedSAM]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        model = start_model("lite-medsam", "cpu", backend="torch")
    yield model
    model.close()


def write(name: str, model: MedSAM, encoder_hash: str | None = None) -> Path:
    state = {
        key: value + 0.01 if key.startswith("mask_decoder.") else value
        for key, value in model.decoder_state().items()
    }
    path = decoder_path(name)
    info = DecoderInfo(name, "lite-medsam", encoder_hash or model.encoder_hash, "d" * 64, detail=4)
    write_decoder(path, state, info)
    return path


class TestProcess:
    @pytest.fixture(autouse=True)
    def same_folder_over_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("NAPARI_MEDSAM_DECODERS", str(tmp_path))

    def test_there_and_back(self, remote_model: RemoteMedSAM, lite: MedSAM) -> None:
        path = write("mine", lite)
        features = np.random.default_rng(0).normal(size=(256, 64, 64)).astype(np.float16)
        box = np.array([[20, 20, 200, 200]], np.float32)
        first = remote_model.decode(features, box, key="k").logits
        tuned = remote_model.switched("mine")
        assert tuned is not None
        assert (tuned.name, tuned.spec.decoder, tuned.spec.detail) == ("mine", path, 4)
        assert (tuned.encoder_hash, tuned.precision) == (lite.encoder_hash, lite.precision)
        assert tuned.decoder_hash != lite.decoder_hash
        expected = lite.with_decoder(
            {
                key: value + 0.01 if key.startswith("mask_decoder.") else value
                for key, value in lite.decoder_state().items()
            }
        )
        answer = tuned.decode(features, box, key="k").logits
        assert np.allclose(answer, expected.decode(features, box).logits, atol=1e-4)
        assert not np.allclose(answer, first)
        back = tuned.switched("lite-medsam")
        assert back is not None
        assert (back.name, back.decoder_hash) == ("lite-medsam", lite.decoder_hash)
        assert np.array_equal(back.decode(features, box, key="k").logits, first)
        assert remote_model._process is back._process

    def test_another_encoder_needs_another_process(self, remote_model: RemoteMedSAM) -> None:
        assert remote_model.switched("medsam-vit-b") is None

    def test_a_decoder_that_is_refused_changes_nothing(
        self, remote_model: RemoteMedSAM, lite: MedSAM
    ) -> None:
        write("foreign", lite, "f" * 64)
        with pytest.raises(CheckpointError, match="was trained on the encoder"):
            remote_model.switched("foreign")
        features = torch.zeros(256, 64, 64).numpy().astype(np.float16)
        box = np.array([[20, 20, 200, 200]], np.float32)
        assert np.array_equal(remote_model.decode(features, box).logits, lite.decode(features, box).logits)

    def test_a_process_that_began_with_a_decoder_knows_the_released_one(self, lite: MedSAM) -> None:
        write("mine", lite)
        model = start_model("mine", "cpu", backend="torch")
        try:
            assert (model.name, model.spec.detail) == ("mine", 4)
            assert model.decoder_hash != lite.decoder_hash
            back = model.switched("lite-medsam")
            assert back is not None
            assert (back.decoder_hash, back.spec.detail) == (lite.decoder_hash, 1)
        finally:
            model.close()
