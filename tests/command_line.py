"""The command line as tests call it."""

from __future__ import annotations

import pytest

from napari_medsam.cli import main as cli


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What stood on stderr: one line, no traceback."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("napari-medsam: ")
    return text
