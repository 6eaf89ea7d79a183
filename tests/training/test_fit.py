"""Training from a store: the order, where it goes on, and as many processes as one likes."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_child import Tiny, TinyChoice

from napari_medsam.errors import CaseError
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.model.decoder_file import read_decoder, read_info
from napari_medsam_training import embed
from napari_medsam_training.corpus.stream import (
    MIXED,
    Place,
    SampleAt,
    SampleReader,
    Shuffle,
    moved_on,
    open_corpus,
    steps_of,
)

CHILD = Path(__file__).with_name("fit_child.py")
CONFIGS = Path(__file__).parents[2] / "training" / "configs"
STEPS = 12
several = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine samples in several shards."""
    from finetune_fakes import write_discs

    folder = tmp_path_factory.mktemp("fit")
    write_discs(folder / "dataset", range(9))
    store = folder / "store"
    assert (
        embed.main([str(folder / "dataset"), str(store), "--shard-size", "3", "--quiet"], TinyChoice()) == 0
    )
    return store


def arguments(store: Path, output: Path, *more: str) -> list[str]:
    return [str(store), "-o", str(output), "--device", "cpu", "--quiet", "--batch", "4", "--seed", "3", *more]


def run(store: Path, output: Path, *more: str, start: Tiny | None = None) -> int:
    from napari_medsam_training import fit

    return fit.main(arguments(store, output, *more), start or Tiny())


def run_two(store: Path, output: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(CHILD),
        *arguments(store, output, "--devices", "2", "--strategy", "ddp", *more),
    ]
    known = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=250, env=known)


def losses(output: Path) -> list[float]:
    with (output.with_suffix(".run") / "losses.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def shuffle(*counts: int, seed: int = 0, mixed: int = MIXED) -> Shuffle:
    return Shuffle([np.arange(count) for count in counts], seed, mixed)


# The order


def test_an_order_is_the_same_for_a_seed_and_epoch_and_no_other() -> None:
    counts = (3, 0, 5, 4, 7)
    whole = list(shuffle(*counts).epoch(1))
    assert list(shuffle(*counts).epoch(1)) == whole
    assert sorted(whole) == [(shard, n) for shard, count in enumerate(counts) for n in range(count)]
    assert list(shuffle(*counts, seed=1).epoch(1)) != whole
    assert list(shuffle(*counts).epoch(2)) != whole
    assert [shard for shard, _ in whole] != sorted(shard for shard, _ in whole)


def test_only_some_shards_are_mixed_at_a_time() -> None:
    order = [shard for shard, _ in shuffle(*[10] * 6, mixed=2).epoch(1)]
    parts = [set(order[first : first + 20]) for first in (0, 20, 40)]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert order[:10] != sorted(order[:10])


@pytest.mark.parametrize("position", range(20))
def test_an_epoch_goes_on_from_any_place(position: int) -> None:
    one = shuffle(3, 5, 4, 7, mixed=2)
    assert list(one.epoch(2, position)) == list(one.epoch(2))[position:]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_each_step_between_them(world: int) -> None:
    one = shuffle(3, 5, 4, 7)
    ranks = [list(one.batches(4, 45, Place(), rank, world)) for rank in range(world)]
    assert {len(steps) for steps in ranks} == {steps_of(19, 4, 45)}
    alone = [[(v.shard, v.sample) for v in step] for step in one.batches(4, 45, Place())]
    for number, parts in enumerate(zip(*ranks, strict=True)):
        taken = [(at.shard, at.sample) for part in parts for at in part]
        assert sorted(taken) == sorted(alone[number])
    first_epoch = list(chain.from_iterable(alone[:5]))
    assert sorted(first_epoch) == [
        (shard, n) for shard, count in enumerate((3, 5, 4, 7)) for n in range(count)
    ]


def test_a_place_moves_on_as_the_steps_do() -> None:
    one, place = shuffle(3, 5, 4, 7), Place()
    steps = list(one.batches(4, 45, place))
    for number in range(len(steps)):
        assert list(one.batches(4, 45, place)) == steps[number:]
        place = moved_on(place, 19, 4, 45)
    assert place == Place(3, 7)


# The fit


def test_a_fit_learns_and_writes_a_decoder(store: Path, tmp_path: Path) -> None:
    from finetune_fakes import seeded_decoder

    output = tmp_path / "discs.safetensors"
    assert run(store, output, "--epochs", "8", "--learning-rate", "0.003") == 0
    found = losses(output)
    assert len(found) == 8 * 3
    assert np.mean(found[-6:]) < 0.8 * np.mean(found[:6])
    info, before = read_info(output), seeded_decoder(0, 64).state_dict()
    assert (info.base, info.prompts, len(info.curve)) == ("tiny", ("box",), 8)
    assert any(
        not np.array_equal(value, before[name])
        for name, value in read_decoder(output, "e" * 64, before).items()
    )
    assert not (output.with_suffix(".run") / "fit.pt").exists()


@pytest.mark.parametrize("held", [False, True])
def test_a_fit_that_was_cut_short_goes_on_within_the_epoch(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    from napari_medsam_training import fit
    from napari_medsam_training.corpus.fit_state import kept_in

    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    more = ("--visits", "30", *(("--config", str(_toml(tmp_path, "hold = 1.0"))) if held else ()))
    assert run(store, whole, *more) == 0
    steps = fit.Fit.run

    def five_steps(self: fit.Fit) -> Iterator[float]:
        for loss in steps(self):
            yield loss
            if len(self.losses) == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit.Fit, "run", five_steps)
        with pytest.raises(KeyboardInterrupt):
            run(store, cut, *more, "--keep-every", "2")
    assert not cut.exists()
    assert run(store, cut, *more) == 2  # it would begin anew
    folder = cut.with_suffix(".run")
    assert run(store, cut, *more, "--seed", "4", "--resume", str(folder)) == 2
    with pytest.raises(CaseError, match="another setting seed"):
        kept_in(folder, {**_settings(folder), "setting seed": 4})
    assert kept_in(folder, _settings(folder)).place == Place(2, 4)
    assert run(store, cut, *more, "--resume", str(folder)) == 0
    assert losses(cut) == losses(whole)
    assert read_info(cut).decoder_hash == read_info(whole).decoder_hash


def _settings(folder: Path) -> dict[str, object]:
    import torch

    return torch.load(folder / "fit.pt", weights_only=True)["settings"]


def test_only_the_training_side_of_a_table_is_taken(store: Path, tmp_path: Path) -> None:
    from napari_medsam_training.corpus.store import EmbeddingStore

    stems = [name.case for shard in EmbeddingStore(store).shards() for name in shard.names]
    table = tmp_path / "split.csv"
    table.write_text(
        "stem,side\n" + "".join(f"{s},{'test' if n < 4 else 'train'}\n" for n, s in enumerate(stems))
    )
    corpus = open_corpus(store, table)
    reader = SampleReader(corpus.path, corpus.names)
    taken = {reader[SampleAt(1, *place)][1].name.case for place in Shuffle(corpus.chosen, 0).epoch(1)}
    assert taken == set(stems[4:])
    assert corpus.content != open_corpus(store).content


def test_reading_ahead_gives_the_same(store: Path, tmp_path: Path) -> None:
    at_once, ahead = tmp_path / "one.safetensors", tmp_path / "ahead.safetensors"
    settings = ("--visits", "13", "--config", str(CONFIGS / "paper.toml"))
    assert run(store, at_once, *settings) == 0
    assert run(store, ahead, *settings, "--readers", "1") == 0
    config = read_info(ahead).config
    assert (config["schedule"], config["jitter_px"], config["visits"]) == ("constant", [0, 20], 13)
    assert losses(ahead) == losses(at_once)


def test_held_it_learns_less(store: Path, tmp_path: Path) -> None:
    """The loss counts what it is held to as well, and the last step's weights are nearer to the first ones."""
    from finetune_fakes import seeded_decoder

    before = seeded_decoder(0, 64).state_dict()
    far, began = [], []
    for hold in (0, 30):
        output = tmp_path / f"{hold}.safetensors"
        settings = str(_toml(tmp_path, f"hold = {hold}.0"))
        more = ("--epochs", "6", "--learning-rate", "0.003", "--config", settings)
        assert run(store, output, *more) == 0
        after = read_decoder(output, "e" * 64, before)
        far.append(sum(float((value - before[name]).abs().sum()) for name, value in after.items()))
        began.append(losses(output)[0])
    assert far[1] < far[0]
    assert began[1] > began[0]


# Clicks


def prompts_trained_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Whether there was a box, and how many clicks, of each prompt that is decoded with a gradient from now on."""
    import torch

    from napari_medsam.model.networks.decoder import SamDecoder

    asked: list[tuple[bool, int]] = []
    decode = SamDecoder.decode_prompt

    def noting(self: SamDecoder, image: object, box: object, points: Any, *rest: Any, **more: Any) -> object:
        if torch.is_grad_enabled():
            asked.append((box is not None, len(points)))
        return decode(self, image, box, points, *rest, **more)

    monkeypatch.setattr(SamDecoder, "decode_prompt", noting)
    return asked


def test_a_decoder_that_knows_clicks_keeps_them(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, settings = tmp_path / "clicks.safetensors", str(_toml(tmp_path, "clicks = 0.8"))
    asked = prompts_trained_on(monkeypatch)
    more = ("--epochs", "3", "--config", settings)
    assert run(store, output, *more, start=Tiny(knows_clicks=True)) == 0
    assert read_info(output).prompts == ("box", "point")
    assert {(True, 0), (True, 1), (False, 1)} <= set(asked)
    asked.clear()
    assert run(store, tmp_path / "boxes.safetensors", *more) == 0
    assert read_info(tmp_path / "boxes.safetensors").prompts == ("box",)
    assert set(asked) == {(True, 0)}
    assert losses(output) != losses(tmp_path / "boxes.safetensors")


def test_click_visits_come_by_their_share_and_are_the_same_on_any_process(store: Path) -> None:
    from finetune_fakes import FRAME

    from napari_medsam_training.fit import visit_of

    corpus, config = open_corpus(store), FinetuneConfig(seed=3)
    reader = SampleReader(corpus.path, corpus.names)
    _, stored = reader[SampleAt(1, 0, 0)]  # a plan does not depend on it
    places = [SampleAt(epoch, *at) for epoch in range(1, 61) for at in Shuffle(corpus.chosen, 3).epoch(epoch)]
    plans = [visit_of(at, stored, config, FRAME, 0.4).plan for at in places]
    with_clicks = [plan.start == "click" or plan.rounds > 1 for plan in plans]
    assert np.mean(with_clicks) == pytest.approx(0.4, abs=0.06)
    assert np.mean([plan.start == "click" for plan in plans]) == pytest.approx(0.2, abs=0.05)
    again = [visit_of(at, stored, config, FRAME, 0.4).plan for at in places[::-7]]
    assert again == plans[::-7]


def test_it_takes_the_steps_that_retraining_takes(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same visits given to `TrainedDecoder` as retraining makes it: equal weights, bit for bit."""
    from finetune_fakes import FRAME, seeded_decoder

    from napari_medsam.finetune.trained_decoder import Step, TrainedDecoder, Visit
    from napari_medsam.model.networks.weights import state_hash

    steps: list[tuple[list[Visit], float]] = []
    take = TrainedDecoder.step

    def noting(self: TrainedDecoder, visits: list[Visit], rate: float, where: str) -> Step:
        steps.append((list(visits), rate))
        return take(self, visits, rate, where)

    output, settings = tmp_path / "scale.safetensors", str(_toml(tmp_path, "hold = 1.0"))
    with monkeypatch.context() as patch:
        patch.setattr(TrainedDecoder, "step", noting)
        assert run(store, output, "--visits", "20", "--config", settings, start=Tiny(knows_clicks=True)) == 0
    config = replace(FinetuneConfig.from_json(read_info(output).config), precision="float32")
    retrained = TrainedDecoder(seeded_decoder(0, 64), FRAME, config, knows_clicks=True)
    for visits, rate in steps:
        retrained.step(visits, rate, "a step")
    assert len(steps) == 7
    assert state_hash(retrained.state()) == read_info(output).decoder_hash


# Several processes


@pytest.fixture(scope="module")
def by_two(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of two processes that nothing stops."""
    output = tmp_path_factory.mktemp("two") / "two.safetensors"
    done = run_two(store, output, "--epochs", "4")
    assert done.returncode == 0, done.stderr
    return losses(output)


@several
def test_two_processes_follow_one(store: Path, tmp_path: Path, by_two: list[float]) -> None:
    alone = tmp_path / "one.safetensors"
    assert run(store, alone, "--epochs", "4") == 0
    assert len(by_two) == STEPS
    np.testing.assert_allclose(by_two, losses(alone), rtol=0, atol=1e-4)


@several
def test_a_run_goes_on_after_a_process_was_killed(store: Path, tmp_path: Path, by_two: list[float]) -> None:
    output = tmp_path / "killed.safetensors"
    more = ("--epochs", "4", "--keep-every", "2")
    ended = run_two(store, output, *more, RANK_TO_KILL="1", STEP_TO_KILL="7")
    assert ended.returncode != 0
    assert "Process 0 of 2 cannot go on" in ended.stderr
    assert f"--resume {output.with_suffix('.run')}" in ended.stderr
    assert not output.exists()
    assert len(losses(output)) == 6
    alone = tmp_path / "alone.safetensors"
    shutil.copytree(output.with_suffix(".run"), alone.with_suffix(".run"))
    done = run_two(store, output, *more, "--resume", str(output.with_suffix(".run")))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(output), by_two, rtol=0, atol=1e-6)
    assert run(store, alone, *more, "--resume", str(alone.with_suffix(".run"))) == 0
    np.testing.assert_allclose(losses(alone), by_two, rtol=0, atol=1e-4)


# What is refused


def test_what_cannot_be_trained_is_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.safetensors"

    def said(*more: str, at: Path = store, to: Path = output, start: Tiny | None = None) -> str:
        assert run(at, to, "--epochs", "1", *more, start=start) == 2
        return capsys.readouterr().err

    assert "leaves some of 8 processes idle" in said("--devices", "8")
    assert "ends with .safetensors" in said(to=tmp_path / "new.pt")
    assert f"{tmp_path} is not a store" in said(at=tmp_path)
    assert "There is no run" in said("--resume", str(tmp_path / "none"))
    assert "whole numbers from 1" in said("--devices", "0")
    assert "learning_rate" in said("--learning-rate", "7")
    assert "no model other" in said("--model", "other")
    assert f"that of tiny is {'f' * 12}" in said(start=Tiny(encoder_hash="f" * 64))
    assert "Training failed: the loss was" in said("--config", str(_toml(tmp_path, "dice = 1e300")))
    (tmp_path / "half.run").mkdir()
    (tmp_path / "half.run" / "fit.pt").write_bytes(b"PK half")
    assert "fit.pt is damaged" in said("--resume", str(tmp_path / "half.run"))
    assert not output.exists()


def _toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("damage", ["gone", "file gone", "bytes", "table"])
def test_a_damaged_shard_is_named(
    store: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    shard = sorted((copy / "shards").glob("*.zarr"))[0]
    file = next(path for path in sorted((shard / "features" / "c").rglob("*")) if path.is_file())
    if damage == "gone":
        shutil.rmtree(shard)
    elif damage == "file gone":
        file.unlink()
    elif damage == "bytes":
        content = bytearray(file.read_bytes())
        content[100:110] = b"0123456789"
        file.write_bytes(content)
    else:
        (shard / "zarr.json").write_text("{")
    assert run(copy, tmp_path / "new.safetensors", "--epochs", "1") == 2
    error = capsys.readouterr().err
    assert shard.name in error
    assert "embed.py again" in error
