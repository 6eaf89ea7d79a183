"""The recipes in `training/` are scripts: their folder is put on the path, as running one does; and the tiny models of
tests/finetune."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS.parent / "training"))
sys.path.append(str(TESTS / "finetune"))  # last: it has a conftest of its own
