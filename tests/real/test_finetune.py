"""A training run on real images: the loop pays where the released model falls short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.events import Done, Event
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.train import train
from napari_medsam.model.decoder_file import read_info

# It trains for some minutes on a busy machine: a longer limit than other tests have.
pytestmark = [pytest.mark.real_data, pytest.mark.timeout(1200)]


def test_bacteria_are_found_better_after_a_few_corrected_frames(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    sys.modules.pop("cases", None)
    from lib.cases import case_of, image_paths

    frames = image_paths(data_folder, "bact_trpl")
    roles = {frames[number]: "train" for number in (10, 13, 16)} | {frames[18]: "test"}
    dataset = CuratedDataset(tmp_path / "dataset", create=True)
    lines = [f"{dataset.append(case_of('bact_trpl', path)).stem},{role}" for path, role in roles.items()]
    table = tmp_path / "split.csv"
    table.write_text("\n".join(lines))
    output = tmp_path / "bacteria.safetensors"
    events: list[Event] = []
    request = TrainingRequest(
        dataset.path, "bacteria", config=FinetuneConfig(epochs=5), split=table, output=output
    )
    train(request, tmp_path / "run", events.append)
    verdict = read_info(output).verdict
    assert verdict is not None
    assert isinstance(events[-1], Done)
    assert verdict.objects == 16
    assert verdict.difference is not None
    assert verdict.difference.dsc > 0.01
