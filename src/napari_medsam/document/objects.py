"""What the user made: classes and objects, with their prompts, predictions and corrections on each plane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from psygnal import Signal

from napari_medsam.geometry import Box, Patch
from napari_medsam.segment.engine import ClickHistory, painted_only
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt

Item = TypeVar("Item")

PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#ffe119", "#9a6324", "#469990")

Origin = Literal["drawn", "carried", "found", "imported"]
"""Where a part came from: the user's hand, another plane, a search that nobody prompted, or a file."""


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

    def __str__(self) -> str:
        """Its position on the axes that have one, as sliders show it: "4", "0:12"."""
        return ":".join(str(place) for place in self.index if place is not None)


PartKey = tuple[int, PlaneKey]
"""Which part: (the object's id, the plane)."""


@dataclass(frozen=True, eq=False)
class Part:
    """An object as it appears on one plane.

    ``before`` is its mask as it stood when the first correction touched it; None means that nobody corrected it.
    ``extent`` holds every pixel that ever carried the object's label in the plane. ``turn`` grows with each
    prediction: among predictions that overlap, the larger turn is the later one. ``masks_before`` has the mask
    before each of the ``points``, which come in the order in which they were clicked. ``score`` says how sure whoever
    carried or found it was, 0 to 1; None where nobody said.
    """

    object_id: int
    plane: PlaneKey
    box: Box | None = None
    points: tuple[Point, ...] = ()
    masks_before: ClickHistory = ()
    prediction: Prediction | None = None
    before: Patch | None = None
    extent: Box | None = None
    turn: int = 0
    problem: str | None = None
    origin: Origin = "drawn"
    score: float | None = None

    @property
    def key(self) -> PartKey:
        return self.object_id, self.plane

    @property
    def corrected(self) -> bool:
        return self.before is not None

    @property
    def prompt(self) -> Prompt | None:
        """What the user drew for it; None when that is nothing, as for one that was painted by hand."""
        prompted = self.box is not None or any(point.positive for point in self.points)
        return Prompt(self.box, self.points) if prompted else None

    @property
    def patch(self) -> Patch | None:
        """The predicted mask as a patch; None before the first prediction."""
        found = self.prediction
        return None if found is None else found.patch


@dataclass(frozen=True, eq=False)
class ObjectRecord:
    """One labelled thing: its id, its class, and a part on each plane that it appears on (at least one)."""

    id: int
    class_id: int
    parts: Mapping[PlaneKey, Part]

    @property
    def corrected(self) -> bool:
        """Whether any of its parts was corrected."""
        return any(part.corrected for part in self.parts.values())


@dataclass(frozen=True)
class DocumentEdit:
    """What happened to a document: to one object, or to many in a batch.

    ``added`` and ``removed`` are objects that are new or gone, ``classified`` those with another class. ``parts`` are
    new, changed or gone. In a batch an object may be in several: look in the document for what is true now.
    """

    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    classified: tuple[int, ...] = ()
    parts: tuple[PartKey, ...] = ()

    @classmethod
    def joined(cls, edits: Sequence[DocumentEdit]) -> DocumentEdit:
        """Several edits as one; each object and part once, in the order in which they came."""
        if len(edits) == 1:
            return edits[0]
        return cls(
            added=_once(number for edit in edits for number in edit.added),
            removed=_once(number for edit in edits for number in edit.removed),
            classified=_once(number for edit in edits for number in edit.classified),
            parts=_once(key for edit in edits for key in edit.parts),
        )


class Document:
    """All objects and classes of one image layer.

    ``edited(DocumentEdit)`` is emitted after each change, in the thread that made it, and once for all changes of a
    ``batch``; ``classes_changed()`` when a class has another name or colour. Only the owner's thread may change a
    document.
    """

    edited = Signal(object)
    classes_changed = Signal()

    def __init__(self) -> None:
        self._objects: dict[int, ObjectRecord] = {}
        self._classes: dict[int, ObjectClass] = {1: ObjectClass(1, "object", PALETTE[0])}
        self._next_id = 1
        self._turn = 0
        self._batches = 0
        self._untold: list[DocumentEdit] = []

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

    def part(self, object_id: int, plane: PlaneKey) -> Part:
        """Return an object's part on a plane; KeyError if it has none there."""
        return self._objects[object_id].parts[plane]

    def get_part(self, object_id: int, plane: PlaneKey) -> Part | None:
        record = self._objects.get(object_id)
        return None if record is None else record.parts.get(plane)

    def parts(self) -> list[Part]:
        """Return the parts of all objects, object by object."""
        return [part for record in self._objects.values() for part in record.parts.values()]

    def in_plane(self, plane: PlaneKey) -> list[Part]:
        """Return what lies on one plane, in the order of the objects."""
        return [record.parts[plane] for record in self._objects.values() if plane in record.parts]

    def planes(self) -> list[PlaneKey]:
        """Return the planes that carry objects, object by object."""
        return list(dict.fromkeys(plane for record in self._objects.values() for plane in record.parts))

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Change many objects and tell it once, at the end of the ``with``, also where that ends in an error."""
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            if not self._batches and self._untold:
                self._tell()

    # objects ------------------------------------------------------------------------------------------------

    @property
    def next_id(self) -> int:
        """The id of the next object; nothing here has it or a larger one."""
        return self._next_id

    def reserve(self, used: int) -> None:
        """Never hand out ids up to ``used``: another layer or a hand-painted label has them."""
        self._next_id = max(self._next_id, int(used) + 1)

    def add(
        self, plane: PlaneKey, box: Box | None, class_id: int, object_id: int | None = None, **fields: Any
    ) -> ObjectRecord:
        """Add an object with its first part and return it; without ``object_id`` it gets the next free id.

        fields: others of the part, its origin and score for one. Raises ValueError for an id that is taken.
        """
        chosen = self._next_id if object_id is None else object_id
        part = Part(chosen, plane, box, **fields)
        return self.restore(ObjectRecord(chosen, class_id, {plane: part}))

    def classify(self, object_id: int, class_id: int) -> ObjectRecord:
        """Give an object another class; KeyError if there is no such object."""
        record = replace(self._objects[object_id], class_id=class_id)
        self._objects[object_id] = record
        self._tell(DocumentEdit(classified=(object_id,)))
        return record

    def restore(self, record: ObjectRecord) -> ObjectRecord:
        """Put in a whole object: one that was removed, or one of an earlier session."""
        if record.id in self._objects or record.id < 1:
            raise ValueError(f"object id {record.id} is taken or not positive")
        self.reserve(record.id)
        self._turn = max([self._turn, *(part.turn for part in record.parts.values())])
        self._objects[record.id] = record
        self._tell(DocumentEdit(added=(record.id,), parts=_keys(record)))
        return record

    def remove(self, object_id: int) -> ObjectRecord:
        """Take an object away, from every plane."""
        record = self._objects.pop(object_id)
        self._tell(DocumentEdit(removed=(object_id,), parts=_keys(record)))
        return record

    # their parts --------------------------------------------------------------------------------------------

    def add_part(self, part: Part) -> Part:
        """Let an object appear on one more plane. KeyError if there is no such object, ValueError if it has a part."""
        if part.plane in self._objects[part.object_id].parts:
            raise ValueError(f"object {part.object_id} has a part on this plane")
        self._turn = max(self._turn, part.turn)
        return self._put(part)

    def update_part(self, object_id: int, plane: PlaneKey, **changes: Any) -> Part:
        """Replace fields of one part, not its object or plane, and return the new one; KeyError if there is none."""
        return self._put(replace(self.part(object_id, plane), **changes))

    def move_part(self, object_id: int, plane: PlaneKey, to: PlaneKey) -> Part:
        """Move a part to another plane, with all that it has; ValueError if the object has one there."""
        with self.batch():
            moved = self.add_part(replace(self.part(object_id, plane), plane=to))
            self.remove_part(object_id, plane)
        return moved

    def remove_part(self, object_id: int, plane: PlaneKey) -> Part:
        """Take an object off one plane; it is gone with its last part."""
        record = self._objects[object_id]
        part = record.parts[plane]
        if len(record.parts) == 1:
            self.remove(object_id)
        else:
            rest = {key: other for key, other in record.parts.items() if key != plane}
            self._objects[object_id] = replace(record, parts=rest)
            self._tell(DocumentEdit(parts=(part.key,)))
        return part

    def predicted(
        self, object_id: int, plane: PlaneKey, prediction: Prediction, masks_before: ClickHistory = ()
    ) -> Part:
        """Give a part its newest prediction, which also forgets an earlier correction.

        masks_before: those before its clicks; where one of them was painted, the correction lives on in the prediction
        and the part still counts as corrected.
        """
        self._turn += 1
        refined = any(mask.painted is not None for mask in masks_before)
        before = self.part(object_id, plane).before if refined else None
        return self.update_part(
            object_id,
            plane,
            prediction=prediction,
            before=before,
            turn=self._turn,
            problem=None,
            masks_before=masks_before,
        )

    def outdate(self, object_id: int, plane: PlaneKey) -> Part:
        """Another model, contrast or box: the prediction stays until there is a new one, but no click builds on it."""
        part = self.part(object_id, plane)
        found = part.prediction
        stale = None if found is None else replace(found, key="")
        painted = painted_only(part.masks_before)
        return self.update_part(object_id, plane, prediction=stale, masks_before=painted)

    def _put(self, part: Part) -> Part:
        record = self._objects[part.object_id]
        self._objects[part.object_id] = replace(record, parts={**record.parts, part.plane: part})
        self._tell(DocumentEdit(parts=(part.key,)))
        return part

    def _tell(self, *edits: DocumentEdit) -> None:
        self._untold.extend(edits)
        if not self._batches:
            untold, self._untold = self._untold, []
            self.edited.emit(DocumentEdit.joined(untold))

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


def _keys(record: ObjectRecord) -> tuple[PartKey, ...]:
    return tuple(part.key for part in record.parts.values())


def _once(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))
