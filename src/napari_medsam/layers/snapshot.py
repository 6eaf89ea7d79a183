"""Copies what is to be exported out of a document and its layers.

This is done in the main thread; what takes time (reading pixels, compressing, writing) is done by
``curation.snapshot.write`` in any thread, so the window never waits for the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medsam.curation.case import ModelRecord, Provenance
from napari_medsam.curation.snapshot import PlaneSnapshot
from napari_medsam.document.objects import PlaneKey
from napari_medsam.errors import CaseError
from napari_medsam.geometry import Box

if TYPE_CHECKING:
    from napari_medsam.layers.work import Work
    from napari_medsam.session.session import Session


def snapshot(work: Work, session: Session) -> list[PlaneSnapshot]:
    """Copy what is to be exported: every plane with objects. Main thread; cheap.

    Raises CaseError when there is nothing to export.
    """
    masks = work.masks
    keys = work.document.planes() if masks is not None else []
    taken = [_snapshot_plane(work, session, key) for key in keys]
    taken = [entry for entry in taken if entry.labels.any()]
    if not taken:
        raise CaseError(f"{work.image.name}: no masks to export. Draw a box and wait for its mask first.")
    return taken


def corrected_planes(works: Iterable[Work], session: Session) -> list[PlaneSnapshot]:
    """Copy the planes on which at least one object was corrected or painted, of several images. Main thread.

    Raises CaseError when there are none.
    """
    taken = [
        _snapshot_plane(work, session, key)
        for work in works
        if work.masks is not None
        for key in work.document.planes()
        if any(part.corrected for part in work.document.in_plane(key))
    ]
    taken = [entry for entry in taken if entry.labels.any()]
    if not taken:
        raise CaseError("No corrected masks to add: correct one with the brush first, or export all of them.")
    return taken


def _snapshot_plane(work: Work, session: Session, key: PlaneKey) -> PlaneSnapshot:
    assert work.masks is not None
    image, model = work.image, session.model
    path = image.source.path
    plane, parts = work.plane(key), tuple(work.document.in_plane(key))
    return PlaneSnapshot(
        plane=plane,
        labels=work.masks.read(key, Box.of_plane(work.masks.shape(key))),
        parts=parts,
        class_ids={part.object_id: work.document[part.object_id].class_id for part in parts},
        classes=work.document.classes,
        contrast=session.settings.contrast,
        model=ModelRecord()
        if model is None
        else ModelRecord(model.name, model.encoder_hash, model.decoder_hash, model.precision),
        source=Provenance(
            layer=image.name,
            path=str(path) if path else None,
            index=key.index,
            displayed=key.displayed,
            shape=tuple(int(n) for n in plane.levels[0].shape),
            dtype=str(plane.dtype),
        ),
        group=Path(path).stem if path else image.name,
        unit=str(image.units[key.displayed[0]]),
    )
