"""A pytest plugin that makes Qt impossible to import, but not napari: see `scripts/no_qt.py`."""

from __future__ import annotations

import pytest

from scripts.no_qt import QT, block


def pytest_addoption(parser: pytest.Parser) -> None:
    block(parser, QT)


def pytest_report_header() -> str:
    """One line that shows in the log that the block was on."""
    return f"blocked imports: {', '.join(sorted(QT))}"
