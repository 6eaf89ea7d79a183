"""The scripts that CI's verdict rests on."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


@pytest.fixture
def tally() -> Callable[[Path], tuple[int, int, int]]:
    return runpy.run_path(str(SCRIPTS / "tally.py"))["tally"]


def test_tests_of_all_runs_are_added_up(tmp_path: Path, tally: Callable) -> None:
    (tmp_path / "rooms.xml").write_text(SUITE.format(10, 0, 0, 2))
    (tmp_path / "ui.xml").write_text(SUITE.format(5, 1, 1, 0))
    assert tally(tmp_path) == (11, 2, 2)


def test_a_failed_check_counts_once(tmp_path: Path, tally: Callable) -> None:
    (tmp_path / "rooms.xml").write_text(SUITE.format(10, 0, 0, 0))  # coverage too low, no test failed
    (tmp_path / "ui.xml").write_text(SUITE.format(5, 2, 0, 0))  # its two failures are counted already
    (tmp_path / "failed-checks").write_text("ruff\nrooms\nui\ndemo\n")
    assert tally(tmp_path) == (13, 2 + 3, 0)


def test_nothing_run_is_nothing_passed(tmp_path: Path, tally: Callable) -> None:
    assert tally(tmp_path) == (0, 0, 0)
