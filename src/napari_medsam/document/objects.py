"""What the user made: classes and objects, with their prompts, predictions and corrections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psygnal import Signal

from napari_medsam.geometry import Bounds as Bounds
from napari_medsam.geometry import Box
from napari_medsam.geometry import Patch as Patch
from napari_medsam.geometry import intersection as intersection
from napari_medsam.geometry import union as union
from napari_medsam.segment.engine import ClickHistory, painted_only
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt

PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#ffe119", "#9a6324", "#469990")


@dataclass(frozen=True)
class ObjectClass:
    """A named, coloured class; ``id`` starts at 1 and is the number key that chooses it."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class PlaneKey:
    """Where a plane lies in its layer.

    ``index`` has one entry an axis of the layer: the position on axes that are not displayed, None on the two
    that are (and on a channel axis). ``displayed`` are the (row, col) axes.
    """

    index: tuple[int | None, ...]
    displayed: tuple[int, int]


@dataclass(frozen=True, eq=False)
class ObjectRecord:
    """One labelled thing.

    ``before`` is the object's mask as it stood when the first correction touched it; None means that nobody
    corrected it. ``extent`` bounds every pixel that ever carried the label in its plane. ``turn`` grows with
    each prediction: among predictions that overlap, the larger turn is the later one. ``masks_before`` has the mask
    before each of the ``points``, which come in the order in which they were clicked.
    """

    id: int
    class_id: int
    plane: PlaneKey
    box: Box | None = None
    prediction: Prediction | None = None
    before: Patch | None = None
    extent: Bounds | None = None
    turn: int = 0
    problem: str | None = None
    points: tuple[Point, ...] = ()
    masks_before: ClickHistory = ()

    @property
    def corrected(self) -> bool:
        return self.before is not None

    @property
    def prompt(self) -> Prompt | None:
        """All that was said about the object; None when that is nothing, as for one that was painted by hand."""
        said = self.box is not None or any(point.positive for point in self.points)
        return Prompt(self.box, self.points) if said else None

    @property
    def patch(self) -> Patch | None:
        """The predicted mask as a patch; None before the first prediction."""
        found = self.prediction
        return None if found is None else found.patch


class Document:
    """All objects and classes of one image layer.

    Signals carry the object's id (``classes_changed`` carries nothing) and are emitted after the change, in
    the thread that made it. Only the owner's thread may change a document.
    """

    added = Signal(int)
    changed = Signal(int)
    removed = Signal(int)
    classes_changed = Signal()

    def __init__(self) -> None:
        self._objects: dict[int, ObjectRecord] = {}
        self._classes: dict[int, ObjectClass] = {1: ObjectClass(1, "object", PALETTE[0])}
        self._next_id = 1
        self._turn = 0

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[ObjectRecord]:
        return iter(tuple(self._objects.values()))

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._objects

    def __getitem__(self, object_id: int) -> ObjectRecord:
        return self._objects[object_id]

    def get(self, object_id: int) -> ObjectRecord | None:
        return self._objects.get(object_id)

    def in_plane(self, plane: PlaneKey) -> list[ObjectRecord]:
        """Return the objects of one plane, in the order of their ids."""
        return [record for record in self if record.plane == plane]

    def planes(self) -> list[PlaneKey]:
        """Return the planes that carry objects, in the order in which they were first used."""
        return list(dict.fromkeys(record.plane for record in self))

    # objects ------------------------------------------------------------------------------------------------

    @property
    def next_id(self) -> int:
        """The id of the next object; nothing here has it or a larger one."""
        return self._next_id

    def reserve(self, used: int) -> None:
        """Never hand out ids up to ``used``: another layer or a hand-painted label has them."""
        self._next_id = max(self._next_id, int(used) + 1)

    def add(
        self, plane: PlaneKey, box: Box | None, class_id: int, object_id: int | None = None
    ) -> ObjectRecord:
        """Add an object and return it; without ``object_id`` it gets the next free id."""
        chosen = self._next_id if object_id is None else object_id
        if chosen in self._objects or chosen < 1:
            raise ValueError(f"object id {chosen} is taken or not positive")
        self.reserve(chosen)
        record = ObjectRecord(chosen, class_id, plane, box)
        self._objects[chosen] = record
        self.added.emit(chosen)
        return record

    def update(self, object_id: int, **changes: Any) -> ObjectRecord:
        """Replace fields of one object and return the new record; KeyError if there is no such object."""
        record = replace(self._objects[object_id], **changes)
        self._objects[object_id] = record
        self.changed.emit(object_id)
        return record

    def predicted(
        self, object_id: int, prediction: Prediction, masks_before: ClickHistory = ()
    ) -> ObjectRecord:
        """Give an object its newest prediction, which also forgets an earlier correction.

        masks_before: the masks before its clicks; where one of them was painted, the correction lives on in the
        prediction and the object still counts as corrected.
        """
        self._turn += 1
        refined = any(mask.painted is not None for mask in masks_before)
        before = self._objects[object_id].before if refined else None
        return self.update(
            object_id,
            prediction=prediction,
            before=before,
            turn=self._turn,
            problem=None,
            masks_before=masks_before,
        )

    def outdate(self, object_id: int) -> ObjectRecord:
        """Another model, contrast or box: the prediction stays until there is a new one, but no click builds on it."""
        record = self._objects[object_id]
        found = record.prediction
        stale = None if found is None else replace(found, key="")
        return self.update(object_id, prediction=stale, masks_before=painted_only(record.masks_before))

    def restore(self, record: ObjectRecord) -> None:
        """Put back an object that was removed, or one of an earlier session."""
        if record.id in self._objects:
            raise ValueError(f"object id {record.id} is taken")
        self.reserve(record.id)
        self._turn = max(self._turn, record.turn)
        self._objects[record.id] = record
        self.added.emit(record.id)

    def remove(self, object_id: int) -> ObjectRecord:
        record = self._objects.pop(object_id)
        self.removed.emit(object_id)
        return record

    # classes ------------------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[ObjectClass, ...]:
        return tuple(self._classes.values())

    def class_of(self, class_id: int) -> ObjectClass:
        """Return a class; an id nobody named yet gets a plain name and the palette's colour."""
        known = self._classes.get(class_id)
        return known or ObjectClass(class_id, f"class {class_id}", PALETTE[(class_id - 1) % len(PALETTE)])

    def name_classes(self, names: Sequence[str]) -> list[int]:
        """Make the classes that a sample names, first come first numbered; gives the number of each name."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}
        for name, number in numbers.items():
            self.set_class(number, name)
        return [numbers[name] for name in names]

    def set_class(self, class_id: int, name: str | None = None, color: str | None = None) -> ObjectClass:
        """Add a class, rename it or give it another colour."""
        known = self.class_of(class_id)
        chosen = ObjectClass(class_id, (name or "").strip() or known.name, color or known.color)
        if self._classes.get(class_id) != chosen:
            self._classes[class_id] = chosen
            self.classes_changed.emit()
        return chosen
