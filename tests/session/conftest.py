"""A model that sees whatever fills the box it is given."""

from __future__ import annotations

import pytest
from fake_model import FakeModel


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()
