"""What a viewer and a session do to each other: which image is at work, when its plane is embedded, when masks land."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_info, show_warning
from psygnal import Signal
from qtpy.QtCore import QObject, QTimer

from napari_medsam.document.objects import Document
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.scheduler import Progress
from napari_medsam.errors import MedSAMError
from napari_medsam.layers.geometry import displayed_plane, layer_shape
from napari_medsam.layers.make import METADATA_KEY
from napari_medsam.layers.stage import Choices
from napari_medsam.layers.work import Work
from napari_medsam.model.api import knows_clicks
from napari_medsam.model.holder import Loader
from napari_medsam.model.remote import start_model
from napari_medsam.session.session import Session
from napari_medsam.session.settings import Settings
from napari_medsam.ui.desk.journals import Journals
from napari_medsam.ui.desk.viewport import SETTLE_MS, Looking
from napari_medsam.ui.qt.activity import Activity
from napari_medsam.ui.qt.bridge import MainThread, single_shot

if TYPE_CHECKING:
    from napari.viewer import Viewer

IMAGE_EVENTS = ("data", "scale", "translate", "rotate", "shear", "affine", "name")


class Controller(QObject):  # type: ignore[misc]
    """Wires one viewer to one session. Everything here runs in the Qt main thread.

    Signals for the dock: ``work_changed(Work | None)``, ``status(str)`` about the plane on screen,
    ``progressed(Progress)``, ``said(str)`` for messages, ``asked()`` when a box was drawn that may be answered in a
    moment, ``painted(id)``, ``configured()`` after a change of settings.
    """

    work_changed = Signal(object)
    status = Signal(str)
    progressed = Signal(object)
    said = Signal(str)
    asked = Signal()
    painted = Signal(int)
    configured = Signal()

    def __init__(
        self,
        viewer: Viewer,
        *,
        settings: Settings | None = None,
        cache: EmbeddingCache | None = None,
        load: Loader | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.choices = Choices()
        self.work: Work | None = None
        self._works: list[Work] = []
        self._closed = False
        self._main = MainThread(self)
        self.session = Session(settings, cache=cache, post=self._main.post, load=load or start_model)
        self.activity = Activity()
        self.journals = Journals(self)
        self._recheck_timer = single_shot(self, self._recheck_now)
        self._looking = Looking(viewer, self.session, lambda: self.work, self)
        self._looking.status.connect(self.status.emit)
        self._connect()
        self.session.warm_up()  # in another process: it loads while the window is built

    def start(self) -> None:
        """Look at the layers that are there already."""
        for layer in tuple(self.viewer.layers):
            self._welcome(layer)
        if self.work is None:
            images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
            if images:
                self.set_image(images[-1])

    @property
    def works(self) -> tuple[Work, ...]:
        """Every image that was put to work and is still there."""
        return tuple(self._works)

    def close(self) -> None:
        """Let go of the viewer and stop the threads."""
        self._recheck_timer.stop()
        self.journals.close()
        self._closed = True
        self._looking.close()
        self._disconnect()
        self.session.close()
        for work in self._works:
            self._unwatch(work)
            work.close()
        self._works.clear()
        self.activity.close()

    # what the dock asks for ---------------------------------------------------------------------------------

    def set_image(self, layer: Image | None) -> None:
        """Put an image to work; its plane on screen is embedded."""
        if layer is None or (self.work is not None and self.work.image is layer):
            return
        found = next((work for work in self._works if work.image is layer), None)
        self._put_to_work(found or self._take_on(self._new_work(layer)))

    def _new_work(self, layer: Image, channel_axis: int | None = None) -> Work:
        return Work(self.viewer, layer, self.session, self.choices, self.later, channel_axis)

    def _take_on(self, work: Work) -> Work:
        self._works.append(work)
        self._watch(work)
        self.journals.begin(work)
        return work

    def _put_to_work(self, work: Work) -> None:
        self.work = work
        self.work_changed.emit(work)
        chosen = self.session.settings.contrast
        if chosen.name == "layer":
            self.follow_layer_contrast(chosen.channels)
        self.show_soon()

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
            self.say(
                f"{name} does not know clicks, or is still being loaded. Draw boxes, or choose lite-medsam."
            )
            return
        work.ready_clicks()

    def _work_on_screen(self) -> Work | None:
        """The image at work, if a plane of it is on screen to be prompted on; else it is said why not."""
        if self.work is None:
            self.say("Open an image first (File > Open, or File > Open Sample > MedSAM).")
            return None
        try:
            displayed_plane(self.viewer, self.work.image, self.work.axes)
        except MedSAMError as error:
            self.say(str(error), warn=True)
            return None
        return self.work

    def configure(self, **changes: Any) -> None:
        """Change model, device or contrast; the plane on screen and all boxes are done again."""
        before = self.session.settings
        self.session.configure(**changes)
        if self.session.settings != before:
            self.show_soon()
        if replace(self.session.settings, ahead=before.ahead) != before:
            own = self.session.settings.contrast.name == "layer"  # each image has limits of its own
            for work in self._works:
                if work is self.work or not own:
                    work.predict_all()
            self.configured.emit()

    def set_channel_axis(self, axis: int | None) -> None:
        """Choose the axis of the image at work that holds channels; prompts and masks start on new layers."""
        if self.work is not None and axis != self.work.axes.channel:
            self._begin_anew(self.work, axis)

    def cancel(self) -> None:
        """Stop embedding; boxes that wait for it stay and are decoded when they are touched again."""
        self.session.cancel()
        self.status.emit("Cancelled. Draw a box or move the slider to go on.")

    def post(self, function: Callable[[], None]) -> None:
        """Run a function in the main thread, from any thread; not any more once this is closed."""
        self._main.post(lambda: None if self._closed else function())

    def later(self, function: Callable[[], object], seconds: float = 0.0) -> None:
        """Run a function once the event loop is back, or so many seconds later; not any more once this is closed."""
        QTimer.singleShot(round(seconds * 1000), lambda: None if self._closed else function())

    def say(self, text: str, *, warn: bool = False) -> None:
        self.said.emit(text)
        (show_warning if warn else show_info)(text)

    def show_soon(self, *_: object) -> None:
        """Embed what is on screen once the view has settled."""
        self._looking.show_soon()

    def _on_asked(self) -> None:
        if self.session.model is not None:
            self.asked.emit()

    # the session's answers ----------------------------------------------------------------------------------

    def _on_predicted(self, document: Document, object_id: int) -> None:
        for work in self._works:
            if work.document is document:
                work.draw(object_id)
                self.painted.emit(object_id)

    def _on_failed(self, document: Document, _object_id: int, message: str) -> None:
        for work in self._works:
            if work.document is document:
                work.relabel()
        self.say(message, warn=True)

    def _on_progress(self, now: Progress) -> None:
        self.progressed.emit(now)
        self.activity.show(now)

    def _on_shown(self, plane: Any, hit: bool) -> None:
        self.status.emit(f"{plane.name}: ready{' (from the cache)' if hit else ''}. Draw boxes.")

    def _on_shown_failed(self, _plane: Any, message: str) -> None:
        self.status.emit(message)
        self.say(message, warn=True)

    # the viewer's events ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        layers = self.viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_removed)
        layers.selection.events.active.connect(self._on_active)
        session = self.session
        session.predicted.connect(self._on_predicted)
        session.failed.connect(self._on_failed)
        session.progress.connect(self._on_progress)
        session.shown.connect(self._on_shown)
        session.shown_failed.connect(self._on_shown_failed)
        session.notice.connect(self._on_notice)
        session.downloading.connect(self.activity.download)

    def _disconnect(self) -> None:
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._on_inserted)
        layers.events.removed.disconnect(self._on_removed)
        layers.selection.events.active.disconnect(self._on_active)

    def _on_notice(self, text: str) -> None:
        self.say(text, warn=True)

    def _on_hint(self, text: str) -> None:
        self.status.emit(text)

    def _on_inserted(self, event: Any) -> None:
        self._welcome(event.value)

    def _on_active(self, event: Any) -> None:
        """Selecting an image, or the boxes or masks of one, puts it to work."""
        if isinstance(event.value, Image):
            self.set_image(event.value)
        elif (owner := self._owner(event.value)) is not None:
            self.set_image(owner.image)

    def _owner(self, layer: Any) -> Work | None:
        """The work whose boxes, clicks or masks a layer holds."""
        for work in self._works:
            parts = (work.prompts, work.clicking.clicks, work.masks)
            if any(part is not None and part.layer is layer for part in parts):
                return work
        return None

    def _welcome(self, layer: Any) -> None:
        """A new image goes to work; a shapes layer that says it holds prompts is attached to the image at work."""
        if isinstance(layer, Image):
            self.set_image(layer)
        elif isinstance(layer, Shapes) and _role(layer) == "prompts":
            work = self.work
            if work is not None and work.prompts is None:
                work.attach_prompts(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        for work in tuple(self._works):
            if layer is work.image:
                self._retire(work)
            elif isinstance(layer, Shapes) and work.prompts is not None and layer is work.prompts.layer:
                work.drop_prompts()
            elif isinstance(layer, Labels) and work.masks is not None and layer is work.masks.layer:
                work.painting.drop()
            elif (clicks := work.clicking.clicks) is not None and layer is clicks.layer:
                work.clicking.drop()

    def _retire(self, work: Work) -> None:
        self._let_go(work)
        if work is not self.work:
            return
        self.session.cancel()
        self.work = None
        self.work_changed.emit(None)
        self.status.emit("No image. Open one, or select an Image layer.")

    def _let_go(self, work: Work) -> None:
        self.journals.end(work)
        self._unwatch(work)
        work.close()
        self._works.remove(work)
        self.session.forget()

    def _begin_anew(self, work: Work, channel_axis: int | None) -> None:
        """The axes or the size of an image mean something else now: its objects do not fit any more."""
        self._let_go(work)
        fresh = self._take_on(self._new_work(work.image, channel_axis))
        for known in work.document.classes:
            fresh.document.set_class(known.id, known.name, known.color)
        if work is self.work:
            self._put_to_work(fresh)

    def _watch(self, work: Work) -> None:
        for name in IMAGE_EVENTS:
            getattr(work.image.events, name).connect(self._on_image_changed)
        work.image.events.contrast_limits.connect(self._on_contrast_limits)
        work.image.events.set_data.connect(self._on_refresh)
        work.notice.connect(self.say)
        work.clicking.hint.connect(self._on_hint)
        work.asked.connect(self._on_asked)
        work.painting.masks_changed.connect(self._watch_masks)

    def _unwatch(self, work: Work) -> None:
        for name in IMAGE_EVENTS:
            getattr(work.image.events, name).disconnect(self._on_image_changed)
        work.image.events.contrast_limits.disconnect(self._on_contrast_limits)
        work.image.events.set_data.disconnect(self._on_refresh)

    def _on_image_changed(self, event: Any) -> None:
        for work in tuple(self._works):
            if work.image is not event.source:
                continue
            if layer_shape(work.image) == work.shape:
                work.forget_planes()
            else:
                self._begin_anew(work, work.axes.channel if work.image.ndim == work.axes.ndim else None)
        self.show_soon()

    def _on_refresh(self, event: Any) -> None:
        # Pixels changed in place come with no other event. A pyramid is refreshed by every pan and zoom.
        if not event.source.multiscale:
            self.session.forget()

    def _on_contrast_limits(self, event: Any) -> None:
        chosen = self.session.settings.contrast
        if chosen.name == "layer" and self.work is not None and self.work.image is event.source:
            self.follow_layer_contrast(chosen.channels)

    def follow_layer_contrast(self, channels: tuple[int, ...] | None = None) -> None:
        """Use the contrast limits that the image at work is shown with, for the channels given."""
        if self.work is None:
            return
        from napari_medsam.image.contrast import Contrast

        low, high = (float(limit) for limit in self.work.image.contrast_limits)
        self.configure(contrast=Contrast("window", (low, high), channels=channels, name="layer"))

    def _watch_masks(self, masks: Any) -> None:
        if masks is not None:
            masks.refreshed.connect(lambda: self._recheck_timer.start(SETTLE_MS))

    # timers -------------------------------------------------------------------------------------------------

    def _recheck_now(self) -> None:
        for work in self._works:
            work.recheck()


def _role(layer: Any) -> str:
    return str(layer.metadata.get(METADATA_KEY, {}).get("role", ""))
