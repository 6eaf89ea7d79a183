"""Connects a viewer and a session: which image is at work, when its plane is embedded, when masks are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_info, show_warning
from psygnal import Signal
from qtpy.QtCore import QObject

from napari_medsam.document.objects import Document, PartKey
from napari_medsam.embedding.scheduler import Progress
from napari_medsam.errors import MedSAMError
from napari_medsam.image.contrast import Contrast
from napari_medsam.layers.geometry import displayed_plane, layer_shape
from napari_medsam.layers.make import METADATA_KEY
from napari_medsam.layers.stage import Choices
from napari_medsam.layers.work import Work
from napari_medsam.model.api import knows_clicks
from napari_medsam.session.session import Session
from napari_medsam.ui.desk.viewport import SETTLE_MS, Viewport
from napari_medsam.ui.qt.activity import Activity
from napari_medsam.ui.qt.bridge import MainThread, single_shot

if TYPE_CHECKING:
    from napari.viewer import Viewer

IMAGE_EVENTS = ("data", "scale", "translate", "rotate", "shear", "affine", "name")


class Controller(QObject):  # type: ignore[misc]
    """Wires one viewer to one session. Everything here runs in the Qt main thread.

    ``work`` is the image at work, ``works`` every image that was put to work and is still there.

    Signals: ``work_changed(Work | None)`` when another image is at work, ``work_opened(Work)`` and
    ``work_closing(Work)`` for each image, ``status(str)`` about the plane on screen, ``progressed(Progress)``,
    ``message(str)`` for what the user is notified of, ``requested()`` when a box was drawn that may be answered in a
    moment, ``painted(id)``, ``configured()`` after a change of settings.
    """

    work_changed = Signal(object)
    work_opened = Signal(object)
    work_closing = Signal(object)
    status = Signal(str)
    progressed = Signal(object)
    message = Signal(str)
    requested = Signal()
    painted = Signal(int)
    configured = Signal()

    def __init__(self, viewer: Viewer, session: Session, main: MainThread) -> None:
        super().__init__()
        self.viewer = viewer
        self.session = session
        self.choices = Choices()
        self.work: Work | None = None
        self.works: tuple[Work, ...] = ()
        self._main = main
        self.activity = Activity()
        self._recheck_timer = single_shot(self, self._recheck_now)
        self._viewport = Viewport(viewer, self.session, lambda: self.work, self)
        self._viewport.status.connect(lambda text: self.status.emit(text))
        for emitter, slot in self._viewer_events():
            emitter.connect(slot)
        self._connect_session()
        self.session.warm_up()  # in another process: it loads while the window is built

    def start(self) -> None:
        """Look at the layers that are there already."""
        for layer in tuple(self.viewer.layers):
            self._on_layer(layer)
        if self.work is None:
            images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
            if images:
                self.set_image(images[-1])

    def close(self) -> None:
        """Disconnect from the viewer and stop the threads."""
        self._recheck_timer.stop()
        self._viewport.close()
        for emitter, slot in self._viewer_events():
            emitter.disconnect(slot)
        self.session.close()
        for work in self.works:
            self._disconnect_image(work)
            work.close()
        self.works = ()
        self.activity.close()

    # what the user does --------------------------------------------------------------------------------------

    def set_image(self, layer: Image | None) -> None:
        """Put an image to work; its plane on screen is embedded."""
        if layer is None or (self.work is not None and self.work.image is layer):
            return
        found = next((work for work in self.works if work.image is layer), None)
        self._activate(found or self._open(layer))

    def _open(self, image: Image, channel_axis: int | None = None) -> Work:
        work = Work(self.viewer, image, self.session, self.choices, self._main.later, channel_axis)
        self.works += (work,)
        for emitter, slot in self._image_events(work):
            emitter.connect(slot)
        work.notice.connect(self.notify)
        work.clicking.hint.connect(lambda text: self.status.emit(text))
        work.asked.connect(self._on_requested)
        work.painting.masks_changed.connect(self._on_masks)
        work.painting.painted.connect(self._on_painted)
        self.work_opened.emit(work)
        return work

    def _activate(self, work: Work) -> None:
        self.work = work
        self.work_changed.emit(work)
        chosen = self.session.settings.contrast
        if chosen.name == "layer":
            self.follow_layer_contrast(chosen.channels)
        self._viewport.show_soon()

    def draw_boxes(self) -> None:
        """Make what is missing to draw boxes on the image at work, and choose the rectangle tool.

        A Shapes layer that is selected takes the boxes: its shapes become objects. A Labels layer of the image's
        shape that is selected takes the masks, whatever array it holds.
        """
        work = self._work_on_screen()
        if work is None:
            return
        chosen = self.viewer.layers.selection.active
        if self._owner(chosen) is None:
            if isinstance(chosen, Shapes):
                work.attach_prompts(chosen)
            elif isinstance(chosen, Labels) and work.painting.fits(chosen):
                work.painting.attach(chosen)
        work.ready_layers()

    def click_objects(self) -> None:
        """Make what is missing to click on objects of the image at work, and choose the tool that adds points."""
        work = self._work_on_screen()
        if work is None:
            return
        if not knows_clicks(self.session.model):
            name = self.session.settings.model
            self.notify(
                f"{name} does not know clicks, or is still loading. Draw boxes, or choose lite-medsam."
            )
            return
        work.ready_clicks()

    def _work_on_screen(self) -> Work | None:
        """The image at work, if a plane of it is on screen; otherwise the user is notified why not."""
        if self.work is None:
            self.notify("Open an image first (File > Open, or File > Open Sample > MedSAM).")
            return None
        try:
            displayed_plane(self.viewer, self.work.image, self.work.axes)
        except MedSAMError as error:
            self.notify(str(error), warn=True)
            return None
        return self.work

    def configure(self, **changes: Any) -> None:
        """Change model, device or contrast; the plane on screen and all boxes are done again."""
        before = self.session.settings
        self.session.configure(**changes)
        if self.session.settings != before:
            self._viewport.show_soon()
        if replace(self.session.settings, ahead=before.ahead) != before:
            own = self.session.settings.contrast.name == "layer"  # each image has limits of its own
            for work in self.works:
                if work is self.work or not own:
                    work.predict_all()
            self.configured.emit()

    def set_channel_axis(self, axis: int | None) -> None:
        """Choose the axis of the image at work that holds channels; prompts and masks start on new layers."""
        if self.work is not None and axis != self.work.axes.channel:
            self._reopen(self.work, axis)

    def work_with_channels(self, work: Work, axis: int | None) -> Work:
        """The work of the same image with another channel axis; `work` itself if it has this one."""
        if work.axes.channel == axis:
            return work
        self.set_image(work.image)
        return self._reopen(work, axis)

    def cancel(self) -> None:
        """Stop embedding; boxes that wait for it stay and are decoded when they are touched again."""
        self.session.cancel()
        self.status.emit("Cancelled. Draw a box or move the slider to continue.")

    def follow_layer_contrast(self, channels: tuple[int, ...] | None = None) -> None:
        """Use the contrast limits that the image at work is shown with, for the channels given."""
        if self.work is not None:
            low, high = (float(limit) for limit in self.work.image.contrast_limits)
            self.configure(contrast=Contrast("window", (low, high), channels=channels, name="layer"))

    def notify(self, text: str, *, warn: bool = False) -> None:
        """Show the user a message."""
        self.message.emit(text)
        (show_warning if warn else show_info)(text)

    # the session's answers ----------------------------------------------------------------------------------

    def _connect_session(self) -> None:
        session = self.session
        session.predicted.connect(self._on_predicted)
        session.failed.connect(self._on_failed)
        session.progress.connect(self._on_progress)
        session.shown.connect(self._on_shown)
        session.shown_failed.connect(self._on_shown_failed)
        session.notice.connect(partial(self.notify, warn=True))
        session.downloading.connect(self.activity.download)

    def _on_predicted(self, document: Document, part: PartKey) -> None:
        for work in self.works:
            if work.document is document:
                work.painting.arrived(part)

    def _on_painted(self, object_ids: tuple[int, ...]) -> None:
        for object_id in object_ids:
            self.painted.emit(object_id)

    def _on_failed(self, document: Document, _part: PartKey, message: str) -> None:
        for work in self.works:
            if work.document is document:
                work.relabel_soon()
        self.notify(message, warn=True)

    def _on_progress(self, now: Progress) -> None:
        self.progressed.emit(now)
        self.activity.show(now)

    def _on_shown(self, plane: Any, hit: bool) -> None:
        self.status.emit(f"{plane.name}: ready{' (from the cache)' if hit else ''}. Draw boxes.")

    def _on_shown_failed(self, _plane: Any, message: str) -> None:
        self.status.emit(message)
        self.notify(message, warn=True)

    def _on_requested(self) -> None:
        if self.session.model is not None:
            self.requested.emit()

    # the viewer's events ------------------------------------------------------------------------------------

    def _viewer_events(self) -> list[tuple[Any, Callable[[Any], None]]]:
        layers = self.viewer.layers
        return [
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
            (layers.selection.events.active, self._on_active),
        ]

    def _on_inserted(self, event: Any) -> None:
        self._on_layer(event.value)

    def _on_active(self, event: Any) -> None:
        """Selecting an image, or the boxes or masks of one, puts it to work."""
        if isinstance(event.value, Image):
            self.set_image(event.value)
        elif (owner := self._owner(event.value)) is not None:
            self.set_image(owner.image)

    def _owner(self, layer: Any) -> Work | None:
        """The work whose boxes, clicks or masks a layer holds."""
        for work in self.works:
            parts = (work.prompts, work.clicking.clicks, work.masks)
            if any(part is not None and part.layer is layer for part in parts):
                return work
        return None

    def _on_layer(self, layer: Any) -> None:
        """A new image goes to work; a shapes layer that says it holds prompts is attached to the image at work."""
        if isinstance(layer, Image):
            self.set_image(layer)
        elif (
            isinstance(layer, Shapes)
            and layer.metadata.get(METADATA_KEY, {}).get("role") == "prompts"
            and self.work is not None
            and self.work.prompts is None
        ):
            self.work.attach_prompts(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        for work in self.works:
            if layer is work.image:
                self._on_image_removed(work)
            elif work.prompts is not None and layer is work.prompts.layer:
                work.drop_prompts()
            elif work.masks is not None and layer is work.masks.layer:
                work.painting.drop()
            elif work.clicking.clicks is not None and layer is work.clicking.clicks.layer:
                work.clicking.drop()

    def _on_image_removed(self, work: Work) -> None:
        self._close(work)
        if work is not self.work:
            return
        self.session.cancel()
        self.work = None
        self.work_changed.emit(None)
        self.status.emit("No image. Open one, or select an Image layer.")

    def _close(self, work: Work) -> None:
        self.work_closing.emit(work)
        self._disconnect_image(work)
        work.close()
        self.works = tuple(other for other in self.works if other is not work)
        self.session.forget()

    def _reopen(self, work: Work, channel_axis: int | None) -> Work:
        """The axes or the size of an image mean something else now: its objects do not fit any more."""
        self._close(work)
        fresh = self._open(work.image, channel_axis)
        for known in work.document.classes:
            fresh.document.set_class(known.id, known.name, known.color)
        if work is self.work:
            self._activate(fresh)
        return fresh

    # an image's events --------------------------------------------------------------------------------------

    def _image_events(self, work: Work) -> list[tuple[Any, Callable[[Any], None]]]:
        events = work.image.events
        return [
            *((getattr(events, name), self._on_image_changed) for name in IMAGE_EVENTS),
            (events.contrast_limits, self._on_contrast_limits),
            (events.set_data, self._on_refresh),
        ]

    def _disconnect_image(self, work: Work) -> None:
        for emitter, slot in self._image_events(work):
            emitter.disconnect(slot)

    def _on_image_changed(self, event: Any) -> None:
        for work in self.works:
            if work.image is not event.source:
                continue
            if layer_shape(work.image) == work.shape:
                work.forget_planes()
            else:
                self._reopen(work, work.axes.channel if work.image.ndim == work.axes.ndim else None)
        self._viewport.show_soon()

    def _on_refresh(self, event: Any) -> None:
        # Pixels changed in place come with no other event. A pyramid is refreshed by every pan and zoom.
        if not event.source.multiscale:
            self.session.forget()

    def _on_contrast_limits(self, event: Any) -> None:
        chosen = self.session.settings.contrast
        if chosen.name == "layer" and self.work is not None and self.work.image is event.source:
            self.follow_layer_contrast(chosen.channels)

    def _on_masks(self, masks: Any) -> None:
        if masks is not None:
            masks.refreshed.connect(lambda: self._recheck_timer.start(SETTLE_MS))

    def _recheck_now(self) -> None:
        for work in self.works:
            work.recheck()
