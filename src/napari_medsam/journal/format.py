"""What stands in a journal: one line for each thing that was made, with a checksum, and nothing that is executed.

A line is eight hex digits (CRC-32 of the rest), a blank and one JSON object: one of the dataclasses below. A later
line about a thing replaces the earlier ones. So a journal that was cut off anywhere still reads: only the line in
which it ends is lost. A part stands there with its own fields (`document.objects.Part` and what that is made of): who
renames or drops one of those raises VERSION and teaches `version_1` or its like the old name.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from napari_medsam.document.objects import ObjectClass, Part, PartKey, PlaneKey
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.records import from_json, packed_json
from napari_medsam.segment.prediction import Prediction

FORMAT: Final = "napari-medsam journal"
VERSION: Final = 2
LONGEST_LINE = 2**30
LARGEST_ID = 2**62
MOST_CLASSES = 10**6
Kind = Literal["rectangle", "ellipse", "polygon"]
KINDS: tuple[Kind, ...] = ("rectangle", "ellipse", "polygon")
LEAST_VERTICES, MOST_VERTICES = 3, 10**6


@dataclass(frozen=True)
class Header:
    """The first line: which image it is about, which of its axes holds channels (None: none), when it was begun."""

    image: ImageIdentity
    channel_axis: int | None
    begun: float
    format: Literal["napari-medsam journal"] = FORMAT
    version: Literal[1, 2] = VERSION

    def __post_init__(self) -> None:
        axes = len(self.image.shape)
        if min(self.image.shape, default=1) < 1 or not 0 <= (self.channel_axis or 0) < max(axes, 1):
            raise ValueError("the image has an impossible shape or channel axis")


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels that carry a label in one plane, as they are on screen; a mask of size 0 for none."""

    plane: PlaneKey
    label: int
    patch: Patch


@dataclass(frozen=True)
class Outline:
    """What was drawn for a part where that is more than its box: a polygon, say.

    kind: as napari names it. vertices: (row, col) each, in plane pixels, whole numbers at pixel centres.
    """

    kind: Kind
    vertices: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PartLine:
    """A part of an object and the object's class. waiting: a sharper mask, or the first, was still to come."""

    part: Part
    class_: int
    waiting: bool = False
    outline: Outline | None = None

    @property
    def key(self) -> str:
        return part_line_key(*self.part.key)


@dataclass(frozen=True)
class PixelsLine:
    pixels: Pixels

    @property
    def key(self) -> str:
        return pixels_line_key(self.pixels.label, self.pixels.plane)


@dataclass(frozen=True)
class ClassesLine:
    classes: tuple[ObjectClass, ...]
    key = "classes"


@dataclass(frozen=True)
class GoneLine:
    """What stood under a key is no longer there."""

    gone: str


@dataclass(frozen=True)
class SavedLine:
    """Parts that were exported as they are. Without a plane, as version 1 has them: wherever the object is."""

    saved: tuple[tuple[int, PlaneKey | None], ...]


@dataclass(frozen=True)
class Place:
    """Where a line's part or pixels lie, and of which object."""

    plane: PlaneKey
    object_id: int = 0
    label: int = 0


@dataclass(frozen=True)
class Mention:
    """What a line of any kind is about, read without unpacking a mask."""

    part: Place | None = None
    pixels: Place | None = None
    classes: tuple[ObjectClass, ...] | None = None
    gone: str | None = None
    saved: tuple[tuple[int, PlaneKey | None], ...] | None = None

    @property
    def subject(self) -> PartKey | None:
        place = self.part or self.pixels
        return None if place is None else (place.object_id or place.label, place.plane)

    @property
    def key(self) -> str:
        """A later line with the same key replaces this one. Raises ValueError for a line of no known kind."""
        if self.subject is not None:
            return part_line_key(*self.subject) if self.part else pixels_line_key(*self.subject)
        if self.classes is None:
            raise ValueError("a line of another kind")
        return ClassesLine.key


def part_line_key(object_id: int, plane: PlaneKey) -> str:
    return f"o{object_id}@{list(plane.index)}{list(plane.displayed)}"


def pixels_line_key(label: int, plane: PlaneKey) -> str:
    return f"p{label}@{list(plane.index)}{list(plane.displayed)}"


# lines --------------------------------------------------------------------------------------------------------


def to_line(entry: object) -> bytes:
    """A dataclass as one line, with its checksum and its end."""
    return sealed(packed_json(entry))


def sealed(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


def opened(line: bytes) -> bytes:
    """The JSON of a line. Raises ValueError for one that is torn or foreign."""
    if len(line) < 12 or not line.endswith(b"\n"):
        raise ValueError("the line is incomplete")
    text = line[9:-1]
    if line[:9] != b"%08x " % zlib.crc32(text):
        raise ValueError("the checksum is wrong")
    return text


def part_line(
    part: Part, class_id: int, *, waiting: bool = False, outline: Outline | None = None
) -> PartLine:
    return PartLine(_stored(part), class_id, waiting, outline)


def _stored(part: Part) -> Part:
    """A part with what a journal keeps of it: how its masks were decoded does not outlive the model."""
    masks = tuple(replace(mask, prediction=_result(mask.prediction)) for mask in part.masks_before)
    problem = part.problem and part.problem[:1000]
    return replace(part, prediction=_result(part.prediction), masks_before=masks, problem=problem)


def _result(found: Prediction | None) -> Prediction | None:
    if found is None:
        return None
    iou = found.iou if math.isfinite(found.iou) else 0.0  # JSON has no number for one that is none
    return replace(found, iou=iou, step=None, others=())


# reading: what does not fit the image is refused --------------------------------------------------------------


def read_part(text: bytes, shape: tuple[int, ...]) -> PartLine:
    """A part of an object in an image of that shape. Raises ValueError with the path of the wrong field."""
    line = from_json(PartLine, text)
    part, size = line.part, _size(line.part.plane, shape)
    for name, box in _boxes(part):
        _check_inside(f"part.{name}", box, size)
    if part.box is not None and part.box.empty:
        raise ValueError("part.box has no area")
    if len(part.masks_before) not in (0, len(part.points)) or not all(
        point.inside(size) for point in part.points
    ):
        raise ValueError("part.points do not fit")
    _check("part.object_id", part.object_id, 1, LARGEST_ID)
    _check("part.turn", part.turn, 0, LARGEST_ID)
    _check("class", line.class_, 1, MOST_CLASSES)
    if line.outline is not None:
        _check("outline.vertices", len(line.outline.vertices), LEAST_VERTICES, MOST_VERTICES)
    extent = None if part.extent is None else _whole("part.extent", part.extent)
    return replace(line, part=_stored(replace(part, extent=extent)))


def read_pixels(text: bytes, shape: tuple[int, ...]) -> Pixels:
    """Pixels of an image of that shape. Raises ValueError as `read_part` does."""
    pixels = from_json(PixelsLine, text).pixels
    _check("pixels.label", pixels.label, 1, LARGEST_ID)
    _check_inside("pixels.patch", pixels.patch.box, _size(pixels.plane, shape))
    return pixels


def read_classes(text: bytes) -> tuple[ObjectClass, ...]:
    """The classes. Raises ValueError as `read_part` does."""
    found = from_json(ClassesLine, text).classes
    for number, known in enumerate(found):
        _check(f"classes[{number}].id", known.id, 1, MOST_CLASSES)
        if re.fullmatch("#[0-9a-fA-F]{6}", known.color) is None:
            raise ValueError(f"classes[{number}].color is not like #e6194b: {known.color!r:.40}")
    return tuple(replace(known, name=known.name[:200]) for known in found)


def _size(plane: PlaneKey, shape: tuple[int, ...]) -> tuple[int, int]:
    """The size (H, W) of a plane of an image of that shape, which it must fit."""
    (row, col), axes = plane.displayed, len(shape)
    if len(plane.index) != axes or not 0 <= row < col < axes:
        raise ValueError("plane has other axes than the image")
    for axis, (place, length) in enumerate(zip(plane.index, shape, strict=True)):
        if place is not None and (axis in (row, col) or not 0 <= place < length):
            raise ValueError(f"plane.index[{axis}] is not in the image: {place}")
    return shape[row], shape[col]


def _boxes(part: Part) -> Iterator[tuple[str, Box]]:
    """All that must lie in the part's plane."""
    if part.extent is not None:
        yield "extent", part.extent
    if part.before is not None:
        yield "before", part.before.box
    predictions = [("prediction", part.prediction)]
    for number, mask in enumerate(part.masks_before):
        predictions.append((f"masks_before[{number}].prediction", mask.prediction))
        if mask.painted is not None:
            yield f"masks_before[{number}].painted", mask.painted.box
    for name, found in predictions:
        if found is not None:
            yield f"{name}.mask", found.patch.box
            yield f"{name}.field", found.field.box
            if found.field.box.empty:
                raise ValueError(f"part.{name}.field has no area")


def _whole(name: str, box: Box) -> Box:
    """A box whose edges, as JSON has them, are whole numbers, with such edges."""
    if box != box.outward():
        raise ValueError(f"{name} is not of whole pixels")
    return box.outward()


def _check_inside(name: str, box: Box, size: tuple[int, int]) -> None:
    if min(box.height, box.width) < 0 or not Box.of_plane(size).contains(box):
        raise ValueError(f"{name} leaves its plane")


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is not from {low} to {high}: {value!r:.40}")
