"""Records to JSON and back: what comes back, and how a wrong field is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from napari_medsam.records import Open, from_json, from_plain, plain, to_json


@dataclass(frozen=True)
class Part:
    label: int
    box: tuple[float, float, float, float] | None = None
    class_: str = "cell"


@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = ()
    counts: Mapping[int, int] = field(default_factory=dict)
    path: Path | None = None
    side: Literal["left", "right"] = "left"
    sure: bool = True
    index: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Loose(Open):
    path: str | None = None
    shape: tuple[int, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder:
    inside: tuple[Loose, ...]


WHOLE = Whole("ä", (Part(1, (0.5, 1, 2, 3)), Part(2)), {3: 4}, Path("a/b"), "right", False, (None, 7))


def test_a_record_comes_back() -> None:
    text = to_json(WHOLE)
    assert from_json(Whole, text) == from_json(Whole, text.encode()) == WHOLE
    assert text.isascii()
    assert list(json.loads(text)) == ["name", "parts", "counts", "path", "side", "sure", "index"]
    assert json.loads(text)["parts"][1] == {"label": 2, "box": None, "class": "cell"}


def test_unknown_keys_are_ignored_and_missing_ones_get_their_default() -> None:
    assert from_json(Whole, '{"name": "a", "parts": [{"label": 1, "tail": NaN}], "x": {}}') == Whole(
        "a", (Part(1),)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "name should be a valid string, not 3"),
        ({"parts": [{"label": 1}, {"label": True}]}, r"parts\[1\]\.label should be a valid integer, not True"),
        ({"parts": [{"label": 1.0}]}, r"parts\[0\]\.label should be a valid integer"),
        ({"parts": [{"label": 1, "box": [1, 2, "3", 4]}]}, r"parts\[0\]\.box\[2\] should be a valid number, not '3'"),
        ({"parts": [{"label": 1, "box": [1, 2, False, 4]}]}, r"parts\[0\]\.box\[2\] should be a valid number"),
        ({"parts": [{"label": 1, "box": [1, 2, float("nan"), 4]}]}, r"box\[2\] should be a finite number, not nan"),
        ({"parts": [{"label": 1, "box": [1, 2, float("inf"), 4]}]}, r"box\[2\] should be a finite number"),
        ({"parts": [{"label": 1, "box": [1, 2, 3]}]}, r"parts\[0\]\.box\[3\] is missing"),
        ({"parts": [{"label": 1, "box": [1, 2, 3, 4, 5]}]}, r"parts\[0\]\.box"),
        ({"parts": [{"label": 1, "class": 2}]}, r"parts\[0\]\.class should be a valid string"),
        ({"parts": [{}]}, r"parts\[0\]\.label is missing"),
        ({"parts": [7]}, r"parts\[0\] should be an object, not 7"),
        ({"parts": {}}, "parts should be a valid array"),
        ({"counts": {"x": 1}}, r"counts\.x"),
        ({"counts": {"1": "2"}}, r"counts\.1 should be a valid integer"),
        ({"path": 3}, "path"),
        ({"side": "up"}, "side should be 'left' or 'right', not 'up'"),
        ({"sure": 1}, "sure should be a valid boolean, not 1"),
        ({"sure": "yes"}, "sure should be a valid boolean"),
        ({"index": [None, "1"]}, r"index\[1\] should be a valid integer"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_by_its_path(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_json(Whole, json.dumps({"name": "a", **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", "[" * 100_000, b"\xff", '{"name": "\\ud'])
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(Whole, text)


def test_a_file_name_of_another_encoding_can_be_read() -> None:
    assert from_json(Whole, to_json(Whole("a\udcffb"))).name == "a?b"
    with pytest.raises(ValueError, match="deep"):
        from_json(Whole, '{"name": "\\udcff", "x": ' + "[" * 100_000)


def test_numbers_of_numpy_and_paths_become_plain() -> None:
    part = Part(np.int64(3), (np.float32(0.5), 1, 2, 3))  # type: ignore[arg-type]
    found = plain({"part": part, "at": Path("x") / "y", "array": np.arange(2), "flag": np.bool_(True)})
    assert json.dumps(found["part"]) == '{"label": 3, "box": [0.5, 1, 2, 3], "class": "cell"}'
    assert (found["at"], found["array"], found["flag"]) == (str(Path("x") / "y"), [0, 1], True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Part(1, (0, 0, float("nan"), 1)), r"box\[2\] is nan"),
        (Whole("a", (Part(1), Part(object()))), r"parts\[1\]\.label is <object"),  # type: ignore[arg-type]
        (Loose(more={"deep": [{"x": float("inf")}]}), r"deep\[0\]\.x is inf"),
        (Loose(more={"deep": {(1, 2): 3}}), "deep has a key that is not text"),
    ],
)
def test_what_json_cannot_hold_is_named_by_its_path(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_json(value)


def test_an_open_record_keeps_what_it_does_not_know() -> None:
    data = {"path": "a", "maker": {"x": [1]}, "shape": [3]}
    record = from_plain(Loose, data, "source")
    assert record == Loose("a", (3,), {"maker": {"x": [1]}}) == from_plain(Loose, record, "source")
    assert plain(record) == data
    assert vars(record).keys() == {"path", "shape", "more"}
    assert from_json(Holder, '{"inside": [{"a": 1}, {}]}') == Holder((Loose(more={"a": 1}), Loose()))
    assert plain(Loose()) == {}
    with pytest.raises(ValueError, match=r"^source\.shape\[0\] should be a valid integer"):
        from_plain(Loose, {"shape": ["3"]}, "source")


def test_the_package_does_without_pydantic_until_something_is_read() -> None:
    code = "import sys, napari_medsam, napari_medsam.records; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
