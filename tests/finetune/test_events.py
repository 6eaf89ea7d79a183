"""Events of a training run as lines: what comes back, in which shape, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recorded_run import DATASET, done, embedding, training

from napari_medsam.finetune.events import Event, Failed, JudgedSoFar, Stopped, from_line, to_line

EVENTS: list[Event] = [
    DATASET,
    embedding(3),
    training(2, 0.5, None, ended=False),
    training(2, 0.5, 0.75),
    JudgedSoFar(1, 3, None),
    done("adopt"),
    Stopped(None, "mine", "Stopped."),
    Stopped(Path("a.safetensors"), "mine", "Stopped."),
    Failed("no memory"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back(event: Event) -> None:
    line = to_line(event)
    assert "\n" not in line
    assert from_line(line) == from_line(line.encode() + b"\n") == event


def test_the_shape_of_a_line() -> None:
    assert to_line(embedding(4)) == '{"kind": "embedding", "done": 4, "of": 12, "made": 4, "left": 24.0}'
    told = json.loads(to_line(done("keep")))
    assert list(told) == ["kind", "decoder", "name", "adopted", "verdict"]
    assert told["verdict"]["classes"][0]["class"] == "cell"
    assert told["verdict"]["table"][0]["new"] == {"dsc": 0.7, "nsd": 0.75}


def test_an_event_nobody_knows_is_none() -> None:
    assert from_line('{"kind": "sing", "song": 3}') is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "JSON"),
        ('{"kind": "emb', "JSON"),
        ("[]", "object"),
        ("{}", "kind is missing"),
        ('{"kind": 3}', "kind should be a valid string"),
        ('{"kind": "failed"}', "message is missing"),
        ('{"kind": "embedding", "done": "1", "of": 2, "made": 0, "left": null}', "done should be a valid integer"),
        ('{"kind": "embedding", "done": 1, "of": 2, "made": 0, "left": NaN}', "left should be a finite number"),
        ('{"kind": "dataset", "cases": 1, "objects": 2, "by": "", "device": "", "split": {"val": "a"}}', r"split\.val"),
        ('{"kind": "stopped", "decoder": 3, "name": "", "message": ""}', "decoder"),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_says_where(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_line(line)


def test_a_verdict_that_is_wrong_says_where() -> None:
    told = json.loads(to_line(done("keep")))
    told["verdict"]["table"][1]["current"]["nsd"] = "0.5"
    with pytest.raises(
        ValueError, match=r"verdict\.table\[1\]\.current\.nsd should be a valid number, not '0.5'"
    ):
        from_line(json.dumps(told))
