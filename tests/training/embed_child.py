"""embed.py with a model without a network, in a process of its own: for workers, which are processes too."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_medsam import FakeMedSAM

for folder in ("tests", "tests/training"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))


@dataclass(frozen=True)
class Fake:
    """The model, as a choice that travels to any process."""

    def load(self) -> FakeMedSAM:
        from fake_medsam import FakeMedSAM

        return FakeMedSAM()

    def identity(self) -> list[Any]:
        return ["fake"]


if __name__ == "__main__":
    from embed_child import Fake as Importable  # not __main__'s, which workers could not find

    from napari_medsam_training import embed

    sys.exit(embed.main(sys.argv[1:], Importable()))
