"""A pytest plugin for `scripts/mutate.py`: runs chosen tests alone, and writes down how long tests take.

CHOSEN_TESTS names a file with a JSON list of test ids: those run, in that order. TEST_TIMES names a file to which a
line goes for each part of a test: its id and its seconds, or null for seconds where it failed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

CHOSEN, TIMES = "CHOSEN_TESTS", "TEST_TIMES"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHOSEN in os.environ:
        known = {item.nodeid: item for item in items}
        chosen = json.loads(Path(os.environ[CHOSEN]).read_text())
        items[:] = [known[test] for test in chosen if test in known]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if TIMES in os.environ:
        with open(os.environ[TIMES], "a") as file:
            file.write(json.dumps([report.nodeid, None if report.failed else report.duration]) + "\n")
