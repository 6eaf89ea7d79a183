"""The journal of one image at work: it collects changes and has them written by the journals' thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_medsam.document.objects import DocumentEdit, ObjectRecord, Part, PartKey, PlaneKey
from napari_medsam.errors import MedSAMError
from napari_medsam.folders import JOURNAL_VARIABLE
from napari_medsam.image.identity import identify
from napari_medsam.journal.recovery import UnsavedJournal, find_unsaved
from napari_medsam.journal.writer import DocumentState, Journal
from napari_medsam.layers.geometry import displayed_plane
from napari_medsam.layers.make import METADATA_KEY
from napari_medsam.layers.restore import outlines
from napari_medsam.ui.qt.bridge import single_shot

if TYPE_CHECKING:
    from psygnal import SignalInstance

    from napari_medsam.geometry import Box
    from napari_medsam.layers.masks import MaskLayer
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
        self.recoverable: list[UnsavedJournal] = []
        self.failed = False
        self._thread = thread
        self._journal: Journal | None = None  # touched by the journals' thread only
        self._masks: MaskLayer | None = None
        self._prompts: PromptLayer | None = None  # the last one, removed or not
        self._shown: PlaneKey | None = None
        self._due = self._repainted = self._closed = False
        self._changed: set[PartKey] = set()
        self._touched: Counter[PartKey] = Counter()
        self._given: dict[PartKey, tuple[Box | None, int]] = {}
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
        for unsaved in self.recoverable:
            self._thread.submit(unsaved.leave)
        self.recoverable.clear()
        self._thread.submit(self._end)

    def flush(self) -> None:
        """Have all that has changed written now."""
        if not self._due:
            return
        document, masks = self.work.document, self._masks
        state = DocumentState(
            objects={record.id: record for record in document},
            classes=document.classes,
            changed=frozenset(self._changed),
            repainted=self._repainted,
            waiting=frozenset(self.work.session.awaited(document)),
            given=frozenset(
                part.key
                for record in document
                for part in record.parts.values()
                if self._untouched(part, record.class_id)
            ),
            outlines=outlines(self.work, self._prompts, self._changed),
            read=None if masks is None else masks.read,
        )
        self._due = self._repainted = False
        self._changed.clear()
        self._writing = self._thread.submit(partial(self._write, state))

    def restored(self, exported: tuple[PartKey, ...]) -> None:
        """All that is in the document now is work to keep; some of it was exported before."""
        self._given.clear()
        self.flush()
        self._thread.submit(partial(self._saved, exported, None))

    def exporting(self, parts: Iterable[Part]) -> Callable[[], None]:
        """Some parts are being exported; to be called when they are."""
        document = self.work.document
        taken = {part.key: self._touched[part.key] for part in parts if document.get_part(*part.key) is part}
        self.flush()
        mark = self._thread.submit(lambda: None if self._journal is None else self._journal.mark())

        def done() -> None:
            same = [key for key, count in taken.items() if self._touched[key] == count]
            if not self._closed:
                self.flush()
                self._thread.submit(lambda: self._saved(same, mark.result()))

        return done

    # what changes -------------------------------------------------------------------------------------------

    def _connections(self) -> list[tuple[SignalInstance, Callable[..., None]]]:
        """What is listened to from the beginning to the end."""
        document = self.work.document
        return [
            (document.edited, self._on_edited),
            (document.classes_changed, self._note_more),
            (self.work.painting.masks_changed, self._on_masks),
        ]

    def _on_edited(self, edit: DocumentEdit) -> None:
        document = self.work.document
        if edit.added and self._from_sample():
            for record in filter(None, map(document.get, edit.added)):
                self._given.update((key, (part.box, record.class_id)) for key, part in _keyed(record))
        changed = set(edit.parts)
        for record in filter(None, map(document.get, edit.classified)):
            changed.update(key for key, _ in _keyed(record))
        self._changed |= changed
        self._touched.update(changed)
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
        masks.refreshed.connect(self._on_refreshed)

    def _leave_masks(self) -> None:
        masks, self._masks = self._masks, None
        if masks is not None:
            masks.refreshed.disconnect(self._on_refreshed)

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

    def _untouched(self, part: Part, class_id: int) -> bool:
        given = self._given.get(part.key)
        return given == (part.box, class_id) and not part.corrected and not part.points

    # the journals' thread -----------------------------------------------------------------------------------

    def _begin(self, identified: Callable[[], Any]) -> None:
        try:
            image = identified()
            self._journal = Journal(self._thread.folder, image, self.work.axes.channel)
            found = find_unsaved(self._thread.folder, image)
        except Exception as error:
            self._thread.post(partial(self._warn, str(error)))
        else:
            self._thread.post(partial(self._on_found, found))

    def _write(self, state: DocumentState) -> None:
        if self._journal is None:
            return
        try:
            self._journal.record(state)
        except Exception as error:
            self.failed = True
            self._thread.post(partial(self._failed, state, error))
        else:
            self.failed = False

    def _saved(self, parts: Iterable[PartKey], mark: Mapping[PartKey, int] | None) -> None:
        if self._journal is not None:
            try:
                self._journal.saved(parts, mark)
            except OSError as error:
                self._thread.post(partial(self._warn, str(error)))

    def _end(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    # back in the main thread --------------------------------------------------------------------------------

    def _on_found(self, found: list[UnsavedJournal]) -> None:
        if self._closed:
            for unsaved in found:
                self._thread.submit(unsaved.leave)
            return
        self.recoverable = found
        self.recoverable_changed.emit()

    def _failed(self, state: DocumentState, error: Exception) -> None:
        """Try again later; what has changed since is written with it."""
        self._warn(str(error))
        if not self._closed:
            self._changed |= state.changed
            self._repainted |= state.repainted
            self._due = True
            self._timer.start(AGAIN_MS)

    def _warn(self, why: str) -> None:
        folder = self._thread.folder
        self._thread.warn(
            f"{self.work.image.name}: unsaved work is not kept safe in {folder} ({why}). "
            f"Export often, free some space, or set {JOURNAL_VARIABLE} to another folder."
        )


def _keyed(record: ObjectRecord) -> Iterable[tuple[PartKey, Part]]:
    return ((part.key, part) for part in record.parts.values())
