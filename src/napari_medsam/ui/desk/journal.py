"""The journal of one image at work: it collects changes and has them written by the journals' thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_medsam.document.objects import ObjectRecord, PlaneKey
from napari_medsam.errors import MedSAMError
from napari_medsam.folders import JOURNAL_VARIABLE
from napari_medsam.geometry import Bounds, union
from napari_medsam.image.identity import identify
from napari_medsam.journal.recovery import Leftover, find_leftovers
from napari_medsam.journal.writer import Change, Journal, Place
from napari_medsam.layers.geometry import displayed_plane
from napari_medsam.layers.make import METADATA_KEY
from napari_medsam.layers.restore import outlines
from napari_medsam.ui.qt.bridge import single_shot

if TYPE_CHECKING:
    from psygnal import SignalInstance

    from napari_medsam.geometry import Box
    from napari_medsam.layers.masks import MaskLayer, Stroke
    from napari_medsam.layers.prompts import PromptLayer
    from napari_medsam.layers.work import Work
    from napari_medsam.ui.desk.journal_thread import JournalThread

WRITE_MS = 300  # a change is on disk about this much later; those of a moment are written together
AGAIN_MS = 5000  # after a write that failed


class WorkJournal:
    """Watches one image at work and has its journal written.

    recoverable: the journals that earlier sessions left of it, the latest first; ``recoverable_changed()`` is emitted
    once they have been found. failed: whether the last write did.
    """

    recoverable_changed = Signal()

    def __init__(self, work: Work, thread: JournalThread) -> None:
        self.work = work
        self.recoverable: list[Leftover] = []
        self.failed = False
        self._thread = thread
        self._journal: Journal | None = None  # touched by the journals' thread only
        self._masks: MaskLayer | None = None
        self._prompts: PromptLayer | None = None  # the last one, removed or not
        self._shown: PlaneKey | None = None
        self._due = self._repainted = self._closed = False
        self._changed: set[int] = set()
        self._touched: Counter[int] = Counter()
        self._given: dict[int, tuple[Box | None, int]] = {}
        self._strays: dict[Place, Bounds] = {}
        self._writing: Future[None] | None = None
        self._timer = single_shot(thread, self._on_time)
        for signal, slot in self._connections():
            signal.connect(slot)
        image = work.image
        levels = list(image.data) if image.multiscale else [image.data]
        identified = partial(identify, levels, name=image.name, path=image.source.path, rgb=bool(image.rgb))
        thread.submit(partial(self._begin, identified))

    def close(self) -> None:
        """Write the rest, and let go of everything."""
        self._closed = True
        self._timer.stop()
        for signal, slot in self._connections():
            signal.disconnect(slot)
        self._leave_masks()
        self.flush()
        for leftover in self.recoverable:
            self._thread.submit(leftover.leave)
        self.recoverable.clear()
        self._thread.submit(self._end)

    def flush(self) -> None:
        """Have all that has changed written now."""
        if not self._due:
            return
        document, masks = self.work.document, self._masks
        change = Change(
            records={record.id: record for record in document},
            classes=document.classes,
            changed=frozenset(self._changed),
            repainted=self._repainted,
            waiting=frozenset(self.work.session.awaited(document)),
            given=frozenset(record.id for record in document if self._untouched(record)),
            outlines=outlines(self.work, self._prompts, self._changed),
            strays=dict(self._strays),
            read=None if masks is None else masks.read,
        )
        self._due = self._repainted = False
        self._changed.clear()
        self._strays.clear()
        self._writing = self._thread.submit(partial(self._write, change))

    def restored(self, exported: tuple[int, ...]) -> None:
        """All that is in the document now is work to keep; some of it was exported before."""
        self._given.clear()
        self.flush()
        self._thread.submit(partial(self._saved, exported, None))

    def exporting(self, records: Iterable[ObjectRecord]) -> Callable[[], None]:
        """Some objects are being exported; to be called when they are."""
        document = self.work.document
        taken = {
            record.id: self._touched[record.id] for record in records if document.get(record.id) is record
        }
        self.flush()
        mark = self._thread.submit(lambda: None if self._journal is None else self._journal.mark())

        def done() -> None:
            ids = [number for number, count in taken.items() if self._touched[number] == count]
            if not self._closed:
                self.flush()
                self._thread.submit(lambda: self._saved(ids, mark.result()))

        return done

    # what changes -------------------------------------------------------------------------------------------

    def _connections(self) -> list[tuple[SignalInstance, Callable[..., None]]]:
        """What is listened to from the beginning to the end."""
        document = self.work.document
        return [
            (document.added, self._on_added),
            (document.changed, self._note),
            (document.removed, self._note),
            (document.classes_changed, self._note_more),
            (self.work.painting.masks_changed, self._on_masks),
        ]

    def _on_added(self, object_id: int) -> None:
        record = self.work.document[object_id]
        if self._from_sample():
            self._given[object_id] = (record.box, record.class_id)
        self._note(object_id)

    def _note(self, object_id: int) -> None:
        self._changed.add(object_id)
        self._touched[object_id] += 1
        self._note_more()

    def _note_more(self) -> None:
        self._due = True
        self._prompts = self.work.prompts or self._prompts
        if not self._timer.isActive() and not self._closed:
            self._timer.start(WRITE_MS)

    def _on_masks(self, masks: MaskLayer | None) -> None:
        """Another Labels layer takes the masks; what the one before showed last is written before it is forgotten."""
        if masks is None:
            self.flush()
            self._leave_masks()
            return
        self._masks = masks
        self._shown = self._plane_shown()
        masks.painted.connect(self._on_stroke)
        masks.refreshed.connect(self._on_refreshed)

    def _leave_masks(self) -> None:
        masks, self._masks = self._masks, None
        if masks is not None:
            masks.painted.disconnect(self._on_stroke)
            masks.refreshed.disconnect(self._on_refreshed)

    def _on_stroke(self, stroke: Stroke) -> None:
        """A brush that reaches through several planes also paints where no object has the label."""
        shown, masks, document = self._plane_shown(), self._masks, self.work.document
        if shown is None or masks is None:
            return
        for plane in masks.planes_of(stroke, shown):
            bounds = masks.stroke_bounds(stroke, plane)
            for label in masks.labels_touched(stroke) if bounds is not None else ():
                record = document.get(label)
                if record is None or record.plane != plane:
                    self._add_stray((plane, label), bounds)
        if self._strays:
            self._note_more()

    def _add_stray(self, place: Place, bounds: Bounds | None) -> None:
        whole = union(self._strays.get(place), bounds)
        if whole is not None:
            self._strays[place] = whole

    def _on_refreshed(self) -> None:
        """The labels were drawn anew: undone, redone or replaced, unless another plane is shown now."""
        shown = self._plane_shown()
        if shown == self._shown:
            self._repainted = True
            self._note_more()
        self._shown = shown

    def _on_time(self) -> None:
        if self._writing is not None and not self._writing.done():
            self._timer.start(WRITE_MS)  # a large one is still being written
        else:
            self.flush()

    def _plane_shown(self) -> PlaneKey | None:
        try:
            return displayed_plane(self.work.viewer, self.work.image, self.work.axes)
        except MedSAMError:
            return None

    def _from_sample(self) -> bool:
        """Whether shapes are being taken over that a sample suggests."""
        prompts = self.work.prompts
        return (
            prompts is not None
            and "classes" in prompts.layer.metadata.get(METADATA_KEY, {})
            and not prompts.drawing
        )

    def _untouched(self, record: ObjectRecord) -> bool:
        given = self._given.get(record.id)
        return given == (record.box, record.class_id) and not record.corrected and not record.points

    # the journals' thread -----------------------------------------------------------------------------------

    def _begin(self, identified: Callable[[], Any]) -> None:
        try:
            image = identified()
            self._journal = Journal(self._thread.folder, image, self.work.axes.channel)
            found = find_leftovers(self._thread.folder, image)
        except Exception as error:
            self._thread.post(partial(self._warn, str(error)))
        else:
            self._thread.post(partial(self._on_found, found))

    def _write(self, change: Change) -> None:
        if self._journal is None:
            return
        try:
            self._journal.record(change)
        except Exception as error:
            self.failed = True
            self._thread.post(partial(self._failed, change, error))
        else:
            self.failed = False

    def _saved(self, object_ids: Iterable[int], mark: Mapping[int, int] | None) -> None:
        if self._journal is not None:
            try:
                self._journal.saved(object_ids, mark)
            except OSError as error:
                self._thread.post(partial(self._warn, str(error)))

    def _end(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    # back in the main thread --------------------------------------------------------------------------------

    def _on_found(self, found: list[Leftover]) -> None:
        if self._closed:
            for leftover in found:
                self._thread.submit(leftover.leave)
            return
        self.recoverable = found
        self.recoverable_changed.emit()

    def _failed(self, change: Change, error: Exception) -> None:
        """Try again later; what has changed since is written with it."""
        self._warn(str(error))
        if not self._closed:
            self._changed |= change.changed
            self._repainted |= change.repainted
            for place, bounds in change.strays.items():
                self._add_stray(place, bounds)
            self._due = True
            self._timer.start(AGAIN_MS)

    def _warn(self, why: str) -> None:
        folder = self._thread.folder
        self._thread.warn(
            f"{self.work.image.name}: unsaved work is not kept safe in {folder} ({why}). "
            f"Export often, free some space, or set {JOURNAL_VARIABLE} to another folder."
        )
