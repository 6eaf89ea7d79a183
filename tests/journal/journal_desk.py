"""A document with labels on a plain array and a journal beside it, as the window keeps them, and how two compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_medsam.document.objects import Document, ObjectRecord, Part, PartKey, PlaneKey
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.field import Field
from napari_medsam.image.identity import ImageIdentity, identify
from napari_medsam.journal.recovery import Recovered
from napari_medsam.journal.writer import DocumentState, Journal
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point

SHAPE = (3, 60, 80)


def key(z: int = 0) -> PlaneKey:
    return PlaneKey((z, None, None), (1, 2))


def stack(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, SHAPE, dtype=np.uint8)


def identity(pixels: np.ndarray | None = None, **about: Any) -> ImageIdentity:
    return identify([stack() if pixels is None else pixels], **{"name": "stack", **about})


def prediction(box: tuple[int, int, int, int], seed: int = 0, key: str = "k" * 64) -> Prediction:
    r0, c0, r1, c1 = box
    mask = np.random.default_rng(seed).random((r1 - r0, c1 - c0)) > 0.4
    return Prediction(Box(*box), r0, c0, mask, 0.75, key, Field(0, 0, 40, 40, "centred"))


class Table:
    """Objects, their labels and the journal that is told of them."""

    def __init__(self, folder: Path, image: ImageIdentity | None = None) -> None:
        self.labels = np.zeros(SHAPE, np.int32)
        self.document = Document()
        self.journal = Journal(folder, image or identity())

    def read(self, plane: PlaneKey, bounds: Box) -> np.ndarray:
        r0, c0, r1, c1 = bounds
        return self.labels[plane.index[0], r0:r1, c0:c1].copy()

    def draw(
        self, box: tuple[int, int, int, int], z: int = 0, class_id: int = 1, number: int | None = None
    ) -> int:
        """A box whose mask has arrived: a new object, or one more part of an object."""
        if number is None:
            number = self.document.add(key(z), Box(*box), class_id).id
        else:
            self.document.add_part(Part(number, key(z), Box(*box), origin="carried", score=0.5))
        found = prediction(box, number)
        self.document.predicted(number, key(z), found)
        self.document.update_part(number, key(z), extent=found.patch.box)
        r0, c0, r1, c1 = box
        self.labels[z, r0:r1, c0:c1][found.mask] = number
        return number

    def paint(self, number: int, where: tuple[slice, slice], z: int = 0) -> None:
        """A correction with the brush."""
        part = self.document.part(number, key(z))
        before = Patch(0, 0, self.labels[z] == number)
        self.labels[z][where] = number
        self.document.update_part(number, key(z), before=part.before or before, extent=Box(0, 0, *SHAPE[1:]))

    def tell(self, *changed: PartKey, **more: Any) -> None:
        """Tell the journal what changed; all of it, when nothing is named."""
        objects = {record.id: record for record in self.document}
        told = frozenset(changed or (part.key for part in self.document.parts()))
        self.journal.record(DocumentState(objects, self.document.classes, told, read=self.read, **more))


def full_table(folder: Path) -> Table:
    """A bit of everything an object can have."""
    table = Table(folder)
    table.document.set_class(2, "nucleus", "#123456")
    table.draw((5, 5, 25, 30))
    corrected = table.draw((10, 20, 40, 60), class_id=2)
    table.paint(corrected, (slice(2, 20), slice(40, 70)))
    clicked = table.draw((30, 2, 55, 22), z=2)
    points = (Point(35.25, 10.0), Point(40.0, 12.5, positive=False))
    masks_before = (
        MaskBefore(prediction((30, 2, 50, 20), 7)),
        MaskBefore(prediction((30, 2, 50, 20), 8, key=""), Patch(31, 3, np.eye(9, dtype=bool))),
    )
    table.document.update_part(clicked, key(2), points=points, masks_before=masks_before)
    table.draw((4, 4, 20, 20), z=2, number=corrected)
    waits = table.document.add(key(1), Box(1.5, 2.25, 30.0, 40.125), 1).id
    table.document.update_part(waits, key(1), problem="The model went away.")
    painted = table.document.add(key(1), None, 2, 9).id
    nothing = Patch(4, 4, np.zeros((0, 0), dtype=bool))
    table.document.update_part(painted, key(1), before=nothing, extent=Box(4, 4, 9, 9))
    table.labels[1, 4:9, 5:8] = painted
    empty = Prediction(Box(1, 1, 3, 3), 1, 1, np.zeros((0, 0), bool), 0.1, "k", Field(0, 0, 60, 80))
    table.document.update_part(waits, key(1), prediction=empty)
    return table


def assert_same_objects(found: Recovered, table: Table) -> None:
    """Every field of every object, every class and every pixel."""
    assert found.classes == table.document.classes
    wanted = {record.id: record for record in table.document}
    assert [record.id for record in found.objects] == sorted(wanted)
    for record in found.objects:
        assert _plain(record) == _plain(wanted[record.id])
    labels = np.zeros(SHAPE, np.int32)
    for pixels in found.pixels:
        r0, c0, r1, c1 = pixels.patch.box
        labels[pixels.plane.index[0], r0:r1, c0:c1][pixels.patch.mask] = pixels.label
    assert np.array_equal(labels, table.labels)


def _plain(value: Any) -> Any:
    """Something that compares by content, down to each mask's pixels."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist()
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {plane: _plain(part) for plane, part in value.items()}
    if isinstance(value, ObjectRecord | Part | Prediction | Patch | MaskBefore):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
