"""The specialist U-Net: it learns discs, replays, and comes back from its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_medsam.curation.case import Case, CaseObject
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.errors import CaseError, CheckpointError
from napari_medsam.evaluate.metrics import dice_coefficient
from napari_medsam_training import baselines

TINY = baselines.UNetConfig(side=32, channels=(4, 8, 16), batch=2, learning_rate=0.01, epochs=12)


def discs(seed: int, shape: tuple[int, ...] = (48, 64)) -> Case:
    """A bright and a dark disc on grey noise; in a volume in every plane but the first."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: shape[-2], : shape[-1]]
    gts = np.zeros(shape, np.uint16)
    gts[..., np.hypot(rows - 20 - seed % 5, cols - 16) < 11] = 3
    gts[..., np.hypot(rows - 26, cols - 45 + seed % 5) < 12] = 7
    if len(shape) == 3:
        gts[0] = 0
    grey = np.clip(rng.normal(120, 12, shape) + 90 * (gts == 3) - 90 * (gts == 7), 0, 255).astype(np.uint8)
    objects = (CaseObject(3, "bright", 1), CaseObject(7, "dark", 2))
    return Case(
        grey if len(shape) == 3 else np.repeat(grey[..., None], 3, axis=2), gts, (1.0,) * len(shape), objects
    )


@pytest.fixture(scope="module")
def specialist() -> baselines.Specialist:
    return baselines.train_unet([discs(n) for n in range(6)], [discs(9)], TINY)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's imports


def test_it_learns_its_classes(specialist: baselines.Specialist) -> None:
    assert specialist.classes == ("bright", "dark")
    case = discs(11)
    found = specialist.segment_case(case)
    assert found.shape == case.gts.shape
    assert dice_coefficient(found == 1, case.gts == 3) > 0.8
    assert dice_coefficient(found == 2, case.gts == 7) > 0.8
    assert specialist.curve[-1].loss < specialist.curve[0].loss
    assert max(point.validation for point in specialist.curve) > 0.8


def test_a_volume_is_segmented_plane_by_plane(specialist: baselines.Specialist) -> None:
    volume = discs(3, (3, 48, 64))
    found = specialist.segment_case(volume)
    assert found.shape == (3, 48, 64)
    np.testing.assert_array_equal(found[1], specialist.segment(volume.imgs[1]))
    both = baselines.train_unet([volume, discs(1)], [], replace(TINY, epochs=1))
    assert both.curve[0].validation is None


def test_the_same_seed_gives_the_same_network() -> None:
    short = replace(TINY, epochs=2)
    cases = [discs(n) for n in range(3)]
    first, again = (baselines.train_unet(cases, [], short).segment(discs(5).imgs) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    losses = [baselines.train_unet(cases, [], replace(short, seed=seed)).curve[-1].loss for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_network_comes_back_from_its_file(specialist: baselines.Specialist, tmp_path: Path) -> None:
    baselines.save(tmp_path / "unet.safetensors", specialist)
    known = baselines.load(tmp_path / "unet.safetensors")
    assert (known.classes, known.config, known.curve) == (
        specialist.classes,
        specialist.config,
        specialist.curve,
    )
    image = discs(12).imgs
    np.testing.assert_array_equal(known.segment(image), specialist.segment(image))
    (tmp_path / "broken.safetensors").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors cannot be read"):
        baselines.load(tmp_path / "broken.safetensors")


def test_planes_are_scaled_and_padded() -> None:
    square, height, width = baselines.fitted(np.full((10, 40), 200, np.uint8), 16)
    assert (square.shape, height, width) == ((16, 16, 3), 4, 16)
    assert (square[:4] == 200).all()
    assert not square[4:].any()
    labels, *_ = baselines.fitted(np.eye(64, dtype=np.uint8) * 5, 16, nearest=True)
    assert set(np.unique(labels)) <= {0, 5}


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no objects"):
        baselines.train_unet([], [], TINY)
    with pytest.raises(CaseError, match="a side that 4 divides"):
        replace(TINY, side=30)
    with pytest.raises(CaseError, match="whole numbers"):
        replace(TINY, batch=0)
    (tmp_path / "bad.toml").write_text("depth = 3")
    with pytest.raises(CaseError, match=r"bad\.toml cannot be read"):
        baselines.read_config(tmp_path / "bad.toml")


def test_the_committed_settings_can_be_read() -> None:
    config = baselines.read_config(Path(__file__).parents[2] / "training" / "configs" / "unet.toml")
    assert (config.side, config.epochs) == (256, None)
    assert [config.epochs_for(planes) for planes in (1, 60, 10_000)] == [60, 20, 10]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CuratedDataset(tmp_path / "cases", create=True).extend([discs(n) for n in range(5)])
    (tmp_path / "unet.toml").write_text("side = 32\nchannels = [4, 8, 16]\n")
    words = [str(tmp_path / "cases"), "-o", str(tmp_path / "unet.safetensors"), "--epochs", "1"]
    assert baselines.main([*words, "--config", str(tmp_path / "unet.toml"), "--seed", "2"]) == 0
    assert "epoch 1  loss " in capsys.readouterr().out
    assert baselines.load(tmp_path / "unet.safetensors").config.seed == 2
    assert baselines.main([str(tmp_path / "gone"), *words[1:]]) == 1
    assert capsys.readouterr().err.startswith("baselines: ")
