"""What the user of a session has chosen."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from napari_medsam.image.contrast import Contrast
from napari_medsam.model.holder import Choice


@dataclass(frozen=True)
class Settings:
    """Model, contrast and fields.

    model: a registry name or checkpoint file. device, backend: see `model.medsam.build_model`. field: "auto" answers a
    small box from a field around it, "whole" every box from the whole plane. detail: K > 1 decodes a large box
    on fields of about 1 / K of it, blended; 1 is off. ahead: embed the fields under the view, and
    then the slices next to the one on screen, before anybody asks.
    """

    model: str = "lite-medsam"
    device: str = "auto"
    backend: str = "auto"
    contrast: Contrast = dataclass_field(default_factory=Contrast)
    field: str = "auto"
    detail: int = 1
    ahead: bool = True

    @property
    def choice(self) -> Choice:
        """What of it a model is loaded by."""
        return Choice(self.model, self.device, self.backend)

    def choosing(self, model: str, details: tuple[int, int]) -> dict[str, Any]:
        """What to change to use another model.

        details: what the model in use and the other one were trained for. The detail follows, unless the user chose
        one of their own and the other model has no wish.
        """
        now, then = details
        follows = then > 1 or self.detail == now
        return {"model": model, "detail": then if follows else self.detail}
