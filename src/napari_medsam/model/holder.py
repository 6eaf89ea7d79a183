"""The one model in use: loaded when first needed, replaced when another is chosen, loaded again when it died."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medsam.errors import Cancelled

if TYPE_CHECKING:
    from napari_medsam.model.api import Model

Loader = Callable[..., "Model"]


def load_here(name: str, **options: Any) -> Model:
    """Load in this process, which cannot be stopped half-way."""
    from napari_medsam.model.local import build_model

    del options["stopping"]
    return build_model(name, **options)


@dataclass(frozen=True)
class Choice:
    """Registry name or checkpoint file, device, encoder backend."""

    name: str = "lite-medsam"
    device: str = "auto"
    backend: str = "auto"


class ModelHolder:
    """Loads and keeps the chosen model. Thread-safe; `choose` and `current` never wait.

    ``load(name, device=..., backend=..., stopping=..., **options)`` builds a model; one that offers ``close()`` is
    closed when it is no longer used, one whose ``alive`` is False is built again. One that offers ``switched(name)``
    is asked for the next model first and gives it, or None; then nothing is closed. ``loaded`` is told each model.
    """

    def __init__(self, load: Loader, choice: Choice, loaded: Callable[[Model], None], **options: Any) -> None:
        self._load = load
        self._choice = choice
        self._told = loaded
        self._options = options
        self._kept: tuple[Choice, Model] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def current(self) -> Model | None:
        """The chosen model, or None while it is not loaded."""
        kept = self._kept
        if kept is None or kept[0] != self._choice or not getattr(kept[1], "alive", True):
            return None
        return kept[1]

    def choose(self, choice: Choice) -> bool:
        """Choose another model; the next `get` loads it. False when it is the one chosen already."""
        changed = choice != self._choice
        self._choice = choice
        return changed

    def get(self) -> Model:
        """The chosen model, loaded now if need be. Raises what the loader raises, and Cancelled once closed."""
        with self._lock:
            while True:
                ready = self.current
                if ready is not None:
                    return ready
                if self._closed:
                    raise Cancelled("The window is closed.")
                if not self._switch(self._choice):
                    self._drop()
                    self._load_chosen(self._choice)

    def close(self) -> None:
        """Close the model, and one that is being loaded as soon as it is there. Does not wait for a load."""
        self._closed = True
        self._drop()

    def _switch(self, chosen: Choice) -> bool:
        """Take the chosen model from the one that is there, where that is another decoder of it."""
        kept = self._kept
        if kept is None or not getattr(kept[1], "alive", True):
            return False
        switch = getattr(kept[1], "switched", None)
        if switch is None or (kept[0].device, kept[0].backend) != (chosen.device, chosen.backend):
            return False
        model = switch(chosen.name)
        if model is None:
            return False
        self._kept = (chosen, model)
        if chosen == self._choice:
            self._told(model)
        return True

    def _load_chosen(self, chosen: Choice) -> None:
        """One that is no longer wanted when it is there, or that cannot be had by then, is nobody's business."""

        def unwanted() -> bool:
            return self._closed or chosen != self._choice

        try:
            built = self._load(
                chosen.name, device=chosen.device, backend=chosen.backend, stopping=unwanted, **self._options
            )
        except Exception:
            if self._closed or not unwanted():
                raise
            return
        self._kept = (chosen, built)
        if self._closed:
            self._drop()
        elif not unwanted():
            self._told(built)

    def _drop(self) -> None:
        kept, self._kept = self._kept, None
        close = getattr(kept[1], "close", None) if kept is not None else None
        if close is not None:
            close()
