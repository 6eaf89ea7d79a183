"""A pytest plugin that makes Qt, napari and everything on top of them impossible to import.

`python -m pytest -p scripts.no_qt -p no:pytest-qt -p no:napari --ignore tests/ui` shows that the rooms
outside `ui` need none of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

BLOCKED = frozenset(
    ["PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "napari", "magicgui", "superqt", "vispy", "pytestqt"]
)


class Blocker(MetaPathFinder):
    """Refuses the blocked packages before any other finder sees them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname.partition(".")[0] in BLOCKED:
            raise ImportError(f"{fullname} is blocked in this run: no Qt, no napari", name=fullname)
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Start blocking, and keep pytest-qt's setting known while its plugin is off."""
    loaded = sorted(BLOCKED & {name.partition(".")[0] for name in sys.modules})
    if loaded:
        raise pytest.UsageError(f"{', '.join(loaded)} were imported before the tests began")
    sys.meta_path.insert(0, Blocker())
    parser.addini("qt_api", "unused here: no Qt binding can be imported")


def pytest_report_header() -> str:
    """One line that shows in the log that the block was on."""
    return f"blocked imports: {', '.join(sorted(BLOCKED))}"
