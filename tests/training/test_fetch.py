"""The command that fetches the training pictures, on a small local repository."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_medsam_training.interactive.fetch import main

TRAINING = Path(__file__).parents[2] / "training" / "interactive"
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
Fetch = Callable[..., int]


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def cells() -> tuple[np.ndarray, np.ndarray]:
    """A 16-bit image 2000 wide, and a mask of two objects whose values are 7 and 9."""
    image = np.tile(np.arange(2000, dtype=np.uint16) * 30, (1000, 1))
    mask = np.zeros(image.shape, np.uint8)
    mask[100:300, 100:300], mask[500:900, 1000:1800] = 7, 9
    return image, mask


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror with the repository lab/cells, which holds an image and its mask."""
    folder = tmp_path / "mirror" / "lab+cells"
    (folder / "set [1]").mkdir(parents=True)
    for name, values in zip(("raw.png", "ids.png"), cells(), strict=True):
        (folder / "set [1]" / name).write_bytes(png(values))
    subprocess.run([*GIT, "init", "-q", str(folder)], check=True)
    commit(folder)
    return folder.parent


def commit(folder: Path) -> None:
    subprocess.run([*GIT, "-C", str(folder), "add", "-A"], check=True)
    subprocess.run([*GIT, "-C", str(folder), "commit", "-qm", "data"], check=True)


@pytest.fixture
def fetch(mirror: Path, tmp_path: Path) -> Fetch:
    """Run the command with one source of these takes; its pictures go to tmp_path/out/cells."""

    def run(
        *take: dict[str, Any], url: str = "https://example.org/lab/cells", local: bool = True, **entry: str
    ) -> int:
        words = [*GIT, "-C", str(mirror / "lab+cells"), "rev-parse", "HEAD"]
        head = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        sources = tmp_path / "sources.json"
        sources.write_text(json.dumps({"cells": {"url": url, "commit": head, "take": take, **entry}}))
        chosen = ["--mirror", str(mirror)] if local else []
        return main([str(tmp_path / "out"), "--sources", str(sources), *chosen])

    return run


CELLS = {"reader": "image", "paths": ["set*/raw.png"], "mask": ["raw", "ids"]}


def check_cells(out: Path) -> None:
    image = np.asarray(Image.open(out / "images" / "set_1_raw.png"))
    mask = np.asarray(Image.open(out / "masks" / "set_1_raw.png"))
    assert image.dtype == np.uint8
    assert image.shape == mask.shape == (750, 1500)
    assert (image[0, 0], image[0, -1]) == (0, 255)
    assert (mask[150, 150], mask[500, 1000], mask[0, 0], mask.max()) == (1, 2, 0, 2)
    with Image.open(out / "masks" / "set_1_raw.png") as stored:
        assert stored.mode == "I;16"


def test_an_image_and_its_mask(fetch: Fetch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "cells"
    assert fetch(CELLS, licence="MIT") == 0
    check_cells(out)
    assert json.loads((out / "source.json").read_text())["licence"] == "MIT"
    assert "cells: 1 images, 1 masks" in capsys.readouterr().out
    assert not list(out.rglob("*.tmp"))


def test_the_network_path_fetches_the_one_commit(fetch: Fetch, mirror: Path, tmp_path: Path) -> None:
    assert fetch(CELLS, url=(mirror / "lab+cells").as_uri(), local=False) == 0
    check_cells(tmp_path / "out" / "cells")


def test_slices_of_a_nifti_volume(fetch: Fetch, mirror: Path, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((20, 30, 40), np.float32)  # x to the right, y to the front, z upwards
    volume[:, :, 30:] = -1000
    volume[:, :, :10] = 400
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), mirror / "lab+cells" / "head.nii.gz")
    commit(mirror / "lab+cells")
    windows = [[-1000, 400], [0, 400]]
    take = {"reader": "nifti", "paths": ["*.nii.gz"], "axes": [0, 2], "each": 2, "windows": windows}
    assert fetch(take) == 0
    written = {
        path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out" / "cells" / "images").iterdir()
    }
    assert sorted(written) == sorted(
        f"head_{at}_w{window}" for at in ("ax0_012", "ax0_030", "ax2_006", "ax2_015") for window in (0, 1)
    )
    assert written["head_ax0_030_w0"].shape == (30, 20)
    upright = written["head_ax2_006_w0"]
    assert upright.shape == (40, 30)
    assert (upright[0, 0], upright[-1, 0]) == (0, 255)
    assert written["head_ax2_006_w1"][20, 0] == 0 < upright[20, 0]


def test_a_missing_path_is_named(fetch: Fetch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch({"reader": "image", "paths": ["gone/*.png"]}) == 1
    said = capsys.readouterr().err
    assert "cells: no file matches 'gone/*.png'" in said
    assert "sources.json" in said
    assert not (tmp_path / "out" / "cells" / "source.json").exists()


def test_a_missing_mask_is_named(fetch: Fetch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch({**CELLS, "mask": ["raw", "labels"]}) == 1
    assert "has no mask set [1]/labels.png" in capsys.readouterr().err


@pytest.mark.parametrize("local", [True, False])
def test_a_bad_commit_is_named(
    fetch: Fetch, mirror: Path, local: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://example.org/lab/cells" if local else (mirror / "lab+cells").as_uri()
    assert fetch(CELLS, url=url, local=local, commit="1" * 40) == 1
    said = capsys.readouterr().err
    assert said.startswith("cells: git says: ")
    assert "check url, commit and paths" in said


def test_every_source_names_its_licence_and_commit() -> None:
    sources = json.loads((TRAINING / "sources.json").read_text(encoding="utf-8"))
    for entry in sources.values():
        assert len(entry["commit"]) == 40
        assert entry["url"].startswith("https://")
        assert all(entry[key] for key in ("licence", "sentence", "sentence_in", "modality", "take"))
