"""Pytest plugins that make Qt, and napari with everything on top of it, impossible to import.

`python -m pytest -p scripts.no_qt -p no:pytest-qt -p no:napari --ignore tests/ui --ignore tests/layers` shows that the
rooms outside `layers` and `ui` need none of it. `-p scripts.no_window ... tests/layers` lets napari's layer models in,
with what napari itself imports for them, but no Qt.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

QT = frozenset(["PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "superqt", "pytestqt"])
BLOCKED = QT | {"napari", "magicgui", "vispy"}


class Blocker(MetaPathFinder):
    """Refuses the blocked packages before any other finder sees them."""

    def __init__(self, blocked: frozenset[str]) -> None:
        self._blocked = blocked

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] in self._blocked:
            raise ImportError(f"{fullname} is blocked in this run, which has no Qt", name=fullname)
        return None


def block(parser: pytest.Parser, blocked: frozenset[str]) -> None:
    """Start blocking, and keep pytest-qt's setting known while its plugin is off."""
    loaded = sorted(blocked & {name.partition(".")[0] for name in sys.modules})
    if loaded:
        raise pytest.UsageError(f"{', '.join(loaded)} were imported before the tests began")
    sys.meta_path.insert(0, Blocker(blocked))
    parser.addini("qt_api", "unused here: no Qt binding can be imported")


def pytest_addoption(parser: pytest.Parser) -> None:
    block(parser, BLOCKED)


def pytest_report_header() -> str:
    """One line that shows in the log that the block was on."""
    return f"blocked imports: {', '.join(sorted(BLOCKED))}"
