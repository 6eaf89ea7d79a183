"""Training runs that version 0.1 left are read as they were meant: `tests/fixtures/v1` says what they hold."""

from __future__ import annotations

import shutil
from functools import reduce
from pathlib import Path

import pytest
import torch

from napari_medsam.finetune.checkpoint import load_checkpoint, run_identity
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.events import Event, from_line
from napari_medsam.finetune.request import request_of
from napari_medsam.finetune.run import runs_folder, unfinished_runs
from napari_medsam.finetune.run_state import RunState, follow
from napari_medsam.finetune.verdict_text import decision_of, rows_of, sentence_of

FROZEN = Path(__file__).parents[1] / "fixtures" / "v1"
DONE, KILLED = FROZEN / "run_done", FROZEN / "run_killed"
IDENTITY = "c9304a06afe3d6b8b48fe705185f5d871b8fe6aa9af31c8bb5a3cbf70bad4aee"


def config() -> FinetuneConfig:
    """No value is the default."""
    return FinetuneConfig(
        visits=500,
        epochs=2,
        least_epochs=3,
        most_epochs=30,
        batch=2,
        learning_rate=3e-4,
        warmup=0.1,
        schedule="constant",
        weight_decay=0.02,
        clip=0.5,
        dice=1.5,
        cross_entropy=0.75,
        iou=0.25,
        correction=0.125,
        keep_base=0.5,
        jitter=(-0.01, 0.08),
        clicks=0.3,
        jitter_px=(0.0, 3.0),
        views=2,
        detail=1,
        shares=(0.5, 1.0),
        patience=5,
        precision="float32",
        seed=11,
    )


def events() -> list[Event]:
    return [event for line in (DONE / "events.jsonl").read_text().splitlines() if (event := from_line(line))]


def test_the_request_with_every_setting() -> None:
    request = request_of(DONE)
    assert request.config == config()
    assert (request.dataset, request.name, request.base) == (Path("/data/nuclei"), "nuclei", "lite-medsam")
    assert (request.current, request.device, request.split) == ("nuclei 1", "cuda", Path("/data/split.csv"))
    assert request.output is None
    assert request_of(KILLED).output == Path("/data/out/mine.safetensors")


def test_its_events_make_the_view_they_made() -> None:
    half = reduce(follow, events()[:40], RunState("nuclei"))
    assert (half.state, half.epoch, half.epochs, half.best, half.done, half.of) == (
        "training",
        2,
        2,
        1,
        52,
        56,
    )
    assert len(half.curve) == 1
    view = reduce(follow, events(), RunState("nuclei"))
    assert (view.state, view.name, view.adopted) == ("done", "nuclei", True)
    assert (view.cases, view.objects, view.by, view.device) == (12, 24, "group", "cpu")
    assert view.split == {"train": 7, "val": 2, "test": 3}
    assert [(point.epoch, round(point.loss, 4), point.validation) for point in view.curve] == [
        (1, 1.5636, 0.4708080924839777),
        (2, 0.9845, 0.6364661293812304),
    ]
    assert view.decoder == Path("/data/decoders/nuclei.safetensors")
    assert view.message.startswith("nuclei is adopted. Better than lite-medsam beyond doubt: DSC +0.734")


def test_the_verdict_in_words_and_rows() -> None:
    ended = from_line((DONE / "ended.json").read_text())
    assert ended == events()[-1]
    verdict = reduce(follow, events(), RunState()).verdict
    assert verdict is not None
    assert decision_of(verdict) == "Adopted"
    assert sentence_of(verdict).endswith("In brackets the 95% interval over objects; judged on 3 cases.")
    assert rows_of(verdict) == [
        ("All", "6", "0.938", "0.204", "0.204", "0.981", "0.145", "0.145"),
        ("class cell", "3", "0.945", "0.191", "0.191", "0.977", "0.148", "0.148"),
        ("class debris", "3", "0.931", "0.216", "0.216", "0.986", "0.141", "0.141"),
        ("2D_discs-10_9084829beb7718df", "2", "0.919", "0.196", "0.196", "0.974", "0.145", "0.145"),
        ("2D_discs-8_7d87b3dd9776a684", "2", "0.941", "0.207", "0.207", "0.969", "0.144", "0.144"),
        ("2D_discs-2_36a06c737fdfb024", "2", "0.954", "0.208", "0.208", "1.000", "0.145", "0.145"),
    ]


def test_only_the_killed_one_is_unfinished() -> None:
    for run in (DONE, KILLED):
        shutil.copytree(run, runs_folder() / run.name)
    assert [folder.name for folder in unfinished_runs()] == ["run_killed"]


def test_the_killed_one_goes_on_from_its_last_epoch() -> None:
    state = load_checkpoint(KILLED, IDENTITY)
    assert state is not None
    assert (state.epoch, state.best_epoch, state.best_score, state.seconds) == (2, 1, 0.8125, 12.5)
    assert [(row["epoch"], row["loss"], row["validation"]) for row in state.curve] == [
        (1, 0.5, 0.8125),
        (2, 0.375, 0.75),
    ]
    assert torch.equal(state.decoder["mask_decoder.iou_token.weight"], torch.arange(4.0))
    assert torch.equal(state.best["mask_decoder.iou_token.weight"], torch.arange(4.0) * 2)
    assert state.optimiser["param_groups"][0]["lr"] == pytest.approx(3e-4)


def test_a_run_is_still_taken_for_the_same_one() -> None:
    """Otherwise a run that was killed before an update begins anew after it."""
    roles = {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
    weights = ("e" * 64, "d" * 64)
    assert run_identity(config(), roles, weights, "cuda") == IDENTITY
    assert run_identity(request_of(KILLED).config, roles, weights, "cuda") == IDENTITY
    assert run_identity(config(), roles, weights, "cpu") != IDENTITY
