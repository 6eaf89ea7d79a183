"""Desks without a window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from layers_desk import LayersDesk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LayersDesk]:
    desk = LayersDesk(tmp_path)
    yield desk
    desk.model.release()
    desk.close()


@pytest.fixture
def image() -> np.ndarray:
    """A bright 256 x 256 plane: the model's frame, pixel for pixel."""
    return np.random.default_rng(0).integers(100, 256, (256, 256), dtype=np.uint8)
