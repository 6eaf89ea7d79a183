"""The knobs of a run: what is refused, and how a config and a request travel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from napari_medsam.errors import CaseError
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.request import TrainingRequest, at_work, is_at_work, request_of, write_request


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("visits", 0), ("epochs", 0), ("epochs", 2.5), ("most_epochs", 0), ("batch", 0), ("batch", 1.5),
        ("learning_rate", 0), ("learning_rate", float("nan")), ("warmup", 1), ("weight_decay", -1), ("clip", 0),
        ("dice", -1), ("cross_entropy", float("nan")), ("jitter", (0.2, 0.1)), ("jitter", (0.1,)),
        ("views", 9), ("views", 0), ("detail", 33), ("detail", 2.0), ("shares", ()), ("shares", (0.0,)),
        ("patience", 0), ("seed", -1), ("schedule", "linear"), ("jitter_px", (20, 0)), ("jitter_px", (-1, 3)),
        ("keep_base", -0.1),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(CaseError, match=f"training setting {name} is"):
        FinetuneConfig(**{name: value})  # type: ignore[arg-type]


def test_without_any_loss_there_is_nothing_to_learn() -> None:
    with pytest.raises(CaseError, match="more than 0 for one of the three losses"):
        FinetuneConfig(dice=0, cross_entropy=0, iou=0)


def test_epochs_follow_from_the_visits() -> None:
    config = FinetuneConfig(visits=600, least_epochs=6, most_epochs=40)
    assert [config.epochs_for(samples) for samples in (1, 20, 600, 10_000)] == [40, 30, 6, 6]
    assert replace(config, epochs=3).epochs_for(1) == 3


def test_a_config_goes_through_plain_values() -> None:
    config = FinetuneConfig(epochs=4, jitter=(0.0, 0.2), shares=(0.5,), jitter_px=(0, 20), seed=9)
    assert FinetuneConfig.from_json({**config.to_json(), "unheard_of": 1}) == config
    assert FinetuneConfig.from_json({}) == FinetuneConfig()


@pytest.mark.parametrize("data", [{"jitter": 3}, {"jitter": [0.1]}, {"batch": "four"}, {"shares": None}])
def test_values_of_another_kind_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(CaseError):
        FinetuneConfig.from_json(data)


def test_a_request_goes_through_a_folder(tmp_path: Path) -> None:
    request = TrainingRequest(
        tmp_path / "cases", "mine", "a", "b", FinetuneConfig(seed=3), "cpu", tmp_path / "t"
    )
    write_request(tmp_path / "run", request)
    assert request_of(tmp_path / "run") == request
    relative = TrainingRequest(Path("cases"), "mine")
    write_request(tmp_path / "run", relative)
    assert request_of(tmp_path / "run").dataset == Path("cases").absolute()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": 3}', "nul"])
def test_a_damaged_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(CaseError, match="Start a new run"):
        request_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, r"name should be a valid string, not 3"),
        ({"config": {"batch": "4"}}, r"config\.batch should be a valid integer, not '4'"),
        ({"config": {"jitter": [0.1]}}, r"config\.jitter\[1\] is missing"),
        ({"config": {"hold": True}}, r"config\.hold should be a valid number"),
        ({"split": 1}, "split"),
    ],
)
def test_a_wrong_field_of_a_request_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    write_request(tmp_path, TrainingRequest(tmp_path, "mine"))
    file = tmp_path / "request.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CaseError, match=said) as error:
        request_of(tmp_path)
    assert str(file) in str(error.value)


def test_files_call_the_pull_to_the_base_hold() -> None:
    config = FinetuneConfig(keep_base=0.5)
    assert config.to_json()["hold"] == 0.5
    assert FinetuneConfig.from_json({"hold": 0.5}) == config


def test_no_request_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot be read"):
        request_of(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CaseError, match="cannot be written"):
        write_request(tmp_path / "file", TrainingRequest(tmp_path, "mine"))


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    with at_work(tmp_path):
        assert is_at_work(tmp_path)
        with pytest.raises(CaseError, match="Another process trains"), at_work(tmp_path):
            pass
    assert not is_at_work(tmp_path)
