"""What a command line must name: without it nothing is loaded and nothing is written."""

from __future__ import annotations

import pytest
from command_line import complaint, run


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["segment", "image.tif", "--box", "1,2,3,4"], "-o"),
        (["segment", "--box", "1,2,3,4", "-o", "a.tif"], "IMAGE"),
        (["embed"], "PATH"),
        (["finetune", "cases"], "-o"),
        (["demo"], "OUT_DIR"),
    ],
)
def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], words: list[str], missing: str) -> None:
    assert run(*words) == 2
    assert missing in complaint(capsys)
