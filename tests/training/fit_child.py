"""fit.py with a decoder small enough for a test, as a command of its own: Fabric starts the others of it.

RANK_TO_KILL and STEP_TO_KILL in the environment: that process ends by SIGKILL after that step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medsam.model.local import MedSAM
    from napari_medsam_training.fit_job import Beginning

sys.path.insert(0, str(Path(__file__).parents[1] / "finetune"))


@dataclass(frozen=True)
class Tiny:
    """Frame of 64 pixels, features (64, 16, 16), logits (64, 64): as embed.py and as fit.py take a model."""

    seed: int = 0
    encoder_hash: str = "e" * 64
    knows_clicks: bool = False

    def load(self, name: str) -> Beginning:
        from finetune_fakes import FRAME, seeded_decoder

        from napari_medsam_training.fit_job import Beginning

        if name != "tiny":
            raise ValueError(f"no model {name}")
        return Beginning(name, seeded_decoder(self.seed, 64), FRAME, self.encoder_hash, self.knows_clicks)


@dataclass(frozen=True)
class TinyChoice:
    """The same model's encoder."""

    def load(self) -> MedSAM:
        from finetune_fakes import PatchEncoder, tiny_model

        return tiny_model(PatchEncoder(channels=64))

    def identity(self) -> list[Any]:
        return ["tiny"]


def killed_after(step: int) -> None:
    """Let this process end by SIGKILL once it has done that step."""
    from napari_medsam_training.fit import Fit

    run = Fit.run

    def until(self: Fit) -> Iterator[float]:
        for loss in run(self):
            yield loss
            if len(self.losses) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    Fit.run = until  # type: ignore[method-assign]


if __name__ == "__main__":
    from napari_medsam_training import fit

    if os.environ.get("RANK_TO_KILL") == os.environ.get("LOCAL_RANK", "0"):
        killed_after(int(os.environ["STEP_TO_KILL"]))
    sys.exit(fit.main(sys.argv[1:], Tiny()))
