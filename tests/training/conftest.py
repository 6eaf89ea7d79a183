"""The tiny models of tests/finetune serve here too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "finetune"))  # last: it has a conftest of its own
