from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from napari_medsam.errors import CheckpointError, DownloadError
from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.checkpoint import checkpoint_path, load_state, progress_bar
from napari_medsam.model.names import find_model

if TYPE_CHECKING:
    from conftest import FileServer

Save = Callable[[object, str], Path]
BODY = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("NAPARI_MEDSAM_MODELS", str(folder))
    monkeypatch.delenv("NAPARI_MEDSAM_MIRROR", raising=False)
    return folder


def spec(url: str | None = None, sha256: str | None = hashlib.sha256(BODY).hexdigest()) -> ModelSpec:
    return ModelSpec("test-model", "sam", "vit_b", "Test", "weights.pth", url=url, sha256=sha256)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_good_download_is_kept_and_reported(server: FileServer, models_folder: Path) -> None:
    server.files["/weights.pth"] = BODY
    seen: list[tuple[int, int]] = []
    path = checkpoint_path(spec(server.url + "/weights.pth"), progress=lambda *at: seen.append(at))
    assert path == models_folder / "weights.pth"
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert all(done <= total for done, total in seen)
    assert leftovers(models_folder) == [path]
    checkpoint_path(spec(server.url + "/weights.pth"))
    assert len(server.requests) == 1


def test_a_wrong_checksum_keeps_nothing(server: FileServer, models_folder: Path) -> None:
    server.files["/weights.pth"] = BODY[:-1] + b"!"
    with pytest.raises(DownloadError, match=r"weights\.pth.*NAPARI_MEDSAM_MIRROR") as caught:
        checkpoint_path(spec(server.url + "/weights.pth"))
    assert server.url in str(caught.value)
    assert leftovers(models_folder) == []


@pytest.mark.parametrize("sha256", [hashlib.sha256(BODY).hexdigest(), None])
def test_a_cut_connection_keeps_nothing_and_the_next_try_works(
    server: FileServer, models_folder: Path, sha256: str | None
) -> None:
    server.files["/weights.pth"] = BODY
    server.cut.add("/weights.pth")
    model = spec(server.url + "/weights.pth", sha256)
    with pytest.raises(DownloadError, match="Nothing was kept"):
        checkpoint_path(model)
    assert leftovers(models_folder) == []
    server.cut.clear()
    assert checkpoint_path(model).read_bytes() == BODY


def test_what_a_killed_download_left_is_swept(server: FileServer, models_folder: Path) -> None:
    server.files["/weights.pth"] = BODY
    stale, fresh = models_folder / ".incomplete" / "old", models_folder / ".incomplete" / "new"
    stale.parent.mkdir(parents=True)
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    checkpoint_path(spec(server.url + "/weights.pth"))
    assert not stale.exists()
    assert fresh.exists()


def test_a_missing_file_on_the_server_is_a_download_error(server: FileServer) -> None:
    with pytest.raises(DownloadError, match="404"):
        checkpoint_path(spec(server.url + "/weights.pth"))


def test_the_mirror_replaces_the_address(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, models_folder: Path
) -> None:
    server.files["/mirror/weights.pth"] = BODY
    monkeypatch.setenv("NAPARI_MEDSAM_MIRROR", server.url + "/mirror/")
    assert checkpoint_path(spec("http://nowhere.invalid/weights.pth")).read_bytes() == BODY
    (models_folder / "weights.pth").unlink()
    monkeypatch.delenv("NAPARI_MEDSAM_MIRROR")
    checkpoint_path(spec("http://nowhere.invalid/weights.pth"), mirror=server.url + "/mirror")
    assert server.requests == ["/mirror/weights.pth"] * 2


def test_a_damaged_file_is_fetched_again(server: FileServer, models_folder: Path) -> None:
    server.files["/weights.pth"] = BODY
    models_folder.mkdir()
    (models_folder / "weights.pth").write_bytes(b"damaged")
    assert checkpoint_path(spec(server.url + "/weights.pth")).read_bytes() == BODY


def test_a_model_without_address_says_where_to_put_the_file(models_folder: Path) -> None:
    with pytest.raises(DownloadError, match=r"weights\.pth") as caught:
        checkpoint_path(spec())
    assert str(models_folder) in str(caught.value)


def test_the_built_in_file_is_verified() -> None:
    with pytest.raises(CheckpointError, match="not the expected file"):
        checkpoint_path(replace(find_model("lite-medsam"), sha256="0" * 64))


def test_a_progress_bar_takes_an_unknown_total() -> None:
    update = progress_bar("weights")
    update(10, 0)
    update(20, 20)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_wrapped_and_plain_state_dicts_load(save: Save, wrapper: str | None) -> None:
    state = {"module.a": torch.arange(3.0)}
    loaded = load_state(save(state if wrapper is None else {wrapper: state, "epoch": 3}, "w.pth"))
    assert list(loaded) == ["a"]
    assert torch.equal(loaded["a"], torch.arange(3.0))


def test_safetensors_load(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(load_state(tmp_path / "w.safetensors")["a"], torch.ones(2))


def test_a_checksum_prefix_is_enough_and_a_wrong_one_is_refused(save: Save) -> None:
    path = save({"a": torch.ones(2)}, "w.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load_state(path, digest[:6])
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        load_state(path, "0" * 6)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self._target),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_file_runs_nothing(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "executed"
    if how == "torch":
        torch.save({"a": torch.ones(1), "b": _Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(_Bomb(trace)))
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        load_state(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken"])
def test_foreign_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"foreign\.pth"):
        load_state(path)


def test_a_truncated_file_is_named(save: Save) -> None:
    path = save({"a": torch.ones(10_000)}, "cut.pth")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(CheckpointError, match=r"cut\.pth"):
        load_state(path)


@pytest.mark.parametrize("content", [[torch.ones(1)], {}, {"a": 3}, {"model": {"a": "text"}}])
def test_what_is_no_state_dict_is_refused(save: Save, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"odd\.pth"):
        load_state(save(content, "odd.pth"))
