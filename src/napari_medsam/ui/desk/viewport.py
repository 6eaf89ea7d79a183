"""The part of the image on screen: once the view has settled, its plane and the fields under it are embedded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QObject

from napari_medsam.errors import MedSAMError
from napari_medsam.geometry import Box
from napari_medsam.layers.work import Work
from napari_medsam.session.session import Session
from napari_medsam.ui.qt.bridge import single_shot

if TYPE_CHECKING:
    from napari.viewer import Viewer

PAN_MS = 400
SETTLE_MS = 80  # a slider that still moves, a layer that is still being set up


class Viewport(QObject):  # type: ignore[misc]
    """Watches the sliders and the camera of one viewer; ``work()`` gives the image at work, or None.

    ``status(str)`` describes what happens to the plane on screen.
    """

    status = Signal(str)

    def __init__(
        self, viewer: Viewer, session: Session, work: Callable[[], Work | None], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._session = session
        self._work = work
        self._view: Box | None = None
        self._show_timer = single_shot(self, self._show)
        self._pan_timer = single_shot(self, self._embed_view)
        for emitter, slot in self._events():
            emitter.connect(slot)

    def close(self) -> None:
        """Disconnect from the viewer."""
        for timer in (self._show_timer, self._pan_timer):
            timer.stop()
        for emitter, slot in self._events():
            emitter.disconnect(slot)

    def show_soon(self, *_: object) -> None:
        """Embed what is on screen once the view has settled."""
        self._show_timer.start(SETTLE_MS)

    def _events(self) -> list[tuple[Any, Callable[..., None]]]:
        dims, camera = self._viewer.dims.events, self._viewer.scene.camera.events
        moved = [(emitter, self.show_soon) for emitter in (dims.point, dims.order, dims.ndisplay)]
        return moved + [(emitter, self._on_camera) for emitter in (camera.center, camera.zoom)]

    def _show(self) -> None:
        work = self._work()
        if work is None:
            return
        try:
            plane = work.shown_plane()
        except MedSAMError as error:
            self.status.emit(str(error))
            return
        self.status.emit(f"{plane.name}: embedding ...")
        self._view = work.view(plane)
        self._session.show(plane, self._view, work.following())

    def _on_camera(self, *_: object) -> None:
        self._pan_timer.start(PAN_MS)

    def _embed_view(self) -> None:
        """After a pan or zoom: embed the fields under the view, unless the view was embedded already."""
        work = self._work()
        if work is None or self._session.settings.field != "auto":
            return
        with suppress(MedSAMError):
            if self._view is None or _needs_embedding(work.view(work.shown_plane()), self._view):
                self._show()


def _needs_embedding(now: Box, before: Box) -> bool:
    """Whether a view leaves an earlier one, or is so much closer that smaller boxes will be drawn in it."""
    return not before.contains(now) or 2 * now.longest <= before.longest
