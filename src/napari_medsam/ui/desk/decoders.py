"""Which decoder a viewer uses: switching, going back, and what a training run produced."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_medsam.errors import MedSAMError
from napari_medsam.model.catalogue import without_decoder
from napari_medsam.model.library import delete_decoder, import_decoder, note_decoder, rename_decoder
from napari_medsam.model.names import find_model

if TYPE_CHECKING:
    from napari_medsam.finetune.request import TrainingRequest
    from napari_medsam.finetune.run_state import RunState
    from napari_medsam.ui.desk.controller import Controller


class Decoders(QObject):  # type: ignore[misc]
    """The decoder in use, and the one before it.

    Signals: ``changed()`` when the list of the user's decoders changes, ``switched(name)`` when another is in use.
    """

    changed = Signal()
    switched = Signal(str)

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._last: str | None = None
        self._shown = self.in_use
        controller.configured.connect(self._on_configured)

    @property
    def in_use(self) -> str:
        return self._controller.session.settings.model

    @property
    def previous(self) -> str | None:
        """What one click goes back to: the model used before, else what the decoder in use was judged against.

        None where there is nothing to go back to.
        """
        for name in (self._last, *_earlier_decoders(self.in_use)):
            if name is not None and name != self.in_use and _detail_of(name) is not None:
                return name
        return None

    def use(self, name: str) -> None:
        """Switch to a model or decoder; the detail it was trained for goes with it."""
        details = (_detail_of(self.in_use) or 1, _detail_of(name) or 1)
        self._controller.configure(**self._controller.session.settings.choosing(name, details))

    def back(self) -> None:
        """Go back to `previous`; a second call undoes that."""
        name = self.previous
        if name is not None:
            self.use(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a decoder, which may be in use. Raises MedSAMError for a name that is taken or not allowed."""
        rename_decoder(old, new)
        if self._last == old:
            self._last = new
        if self.in_use == old:
            last = self._last
            self._controller.configure(model=new)
            self._last = last
        self.changed.emit()

    def note(self, name: str, text: str) -> None:
        """Keep a note with a decoder."""
        note_decoder(name, text)
        self.changed.emit()

    def add(self, source: Path) -> str:
        """Import a decoder file; return the name it got."""
        name = import_decoder(source).name
        self.changed.emit()
        return name

    def delete(self, name: str) -> None:
        """Delete a decoder for good; where it is in use, its model's own one takes over."""
        if self.in_use == name:
            with suppress(MedSAMError):
                self.use(without_decoder(find_model(name)))
        if self._last == name:
            self._last = None
        delete_decoder(name)
        self.changed.emit()

    def on_trained(self, request: TrainingRequest, view: RunState) -> str:
        """Use the decoder of a finished run at once if it was adopted. Returns a message for the user."""
        if view.decoder is None:
            return view.message
        self.changed.emit()
        if not view.adopted:
            return view.message
        if self.in_use != request.current:
            return f"{view.message} It is not used yet, because you chose {self.in_use} in the meantime."
        self.use(view.name)
        return f"{view.message} It is in use now."

    def _on_configured(self) -> None:
        if self.in_use != self._shown:
            self._last, self._shown = self._shown, self.in_use
            self.switched.emit(self.in_use)


def _detail_of(name: str) -> int | None:
    """The detail of a model; None where it does not exist any more."""
    try:
        return find_model(name).detail
    except MedSAMError:
        return None


def _earlier_decoders(name: str) -> tuple[str | None, ...]:
    """The decoder that a decoder was judged against, and its model's own one."""
    try:
        spec = find_model(name)
    except MedSAMError:
        return ()
    if spec.decoder is None:
        return ()
    from napari_medsam.model.decoder_file import read_info

    verdict = read_info(spec.decoder).verdict
    return (None if verdict is None else verdict.current or None, without_decoder(spec))
