"""What stands in a journal: one line for each thing that was made, with a checksum, and nothing that is executed.

A line is eight hex digits (CRC-32 of the rest), a blank and one JSON object. A later line about a thing replaces the
earlier ones. So a journal that was cut off anywhere still reads: only the line in which it ends is lost. Masks are
cropped to what is set, packed to bits, compressed and written as base64.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import ObjectClass, ObjectRecord, PlaneKey
from napari_medsam.geometry import Bounds, Box, Patch
from napari_medsam.image.field import Field
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.segment.engine import MaskBefore
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point

FORMAT = "napari-medsam journal"
VERSION = 1
LONGEST_LINE = 2**30
MOST_PIXELS = 2**32  # of one mask
MOST_OBJECTS = 10**6
KINDS = ("rectangle", "ellipse", "polygon")
LEAST_VERTICES, MOST_VERTICES = 3, 10**6

Json = dict[str, Any]


@dataclass(frozen=True)
class Header:
    """The first line: which image it is about, which of its axes holds channels (None: none), when it was begun."""

    image: ImageIdentity
    channel_axis: int | None
    begun: float


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels that carry a label in one plane, as they are on screen; a mask of size 0 for none."""

    plane: PlaneKey
    label: int
    patch: Patch


@dataclass(frozen=True)
class Outline:
    """What was drawn for an object where that is more than its box: a polygon, say.

    kind: as napari names it. vertices: (row, col) each, in plane pixels, whole numbers at pixel centres.
    """

    kind: str
    vertices: tuple[tuple[float, float], ...]


# lines --------------------------------------------------------------------------------------------------------


def to_line(entry: Json) -> bytes:
    """One line, with its checksum and its end."""
    text = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def from_line(line: bytes) -> Json:
    """What a line says. Raises ValueError for one that is torn or foreign."""
    if len(line) < 12 or not line.endswith(b"\n"):
        raise ValueError("the line is incomplete")
    text = line[9:-1]
    if line[:9] != b"%08x " % zlib.crc32(text):
        raise ValueError("the checksum is wrong")
    try:
        entry = json.loads(text)
    except RecursionError as error:
        raise ValueError("the line is nested too deeply") from error
    if not isinstance(entry, dict):
        raise ValueError("the line is not an object")
    return entry


def key_of(entry: Json) -> str:
    """What a line is about: a later one about the same replaces it. Raises ValueError for what is no such line."""
    if "object" in entry:
        return f"o{entry['object']}"
    if "pixels" in entry:
        index, displayed = entry["plane"]
        return f"p{entry['pixels']}@{index}{displayed}"
    if "classes" in entry:
        return "classes"
    raise ValueError("a line of another kind")


# the header ---------------------------------------------------------------------------------------------------


def header_entry(header: Header) -> Json:
    image = header.image
    about = {
        "key": image.key,
        "shape": list(image.shape),
        "dtype": image.dtype,
        "path": image.path,
        "name": image.name,
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "image": about,
        "channel_axis": header.channel_axis,
        "begun": header.begun,
    }


def read_header(entry: Json) -> Header:
    """Raises ValueError, KeyError or TypeError for what is no header of this version."""
    if entry["format"] != FORMAT or entry["version"] != VERSION:
        raise ValueError("not a journal of this version")
    about = entry["image"]
    shape = tuple(whole_number(length, 1) for length in about["shape"])
    path = None if about["path"] is None else _text(about["path"])
    image = ImageIdentity(_text(about["key"]), shape, _text(about["dtype"]), path, _text(about["name"]))
    axis = entry["channel_axis"]
    return Header(
        image, None if axis is None else whole_number(axis, 0, len(shape) - 1), _number(entry["begun"])
    )


# classes ------------------------------------------------------------------------------------------------------


def classes_entry(classes: tuple[ObjectClass, ...]) -> Json:
    return {"classes": [[known.id, known.name, known.color] for known in classes]}


def read_classes(entry: Json) -> tuple[ObjectClass, ...]:
    return tuple(
        ObjectClass(whole_number(number, 1, MOST_OBJECTS), _text(name)[:200], _color(color))
        for number, name, color in entry["classes"]
    )


# objects ------------------------------------------------------------------------------------------------------


def object_entry(record: ObjectRecord, *, waiting: bool = False, outline: Outline | None = None) -> Json:
    """All that is known of an object but its pixels. waiting: a sharper mask, or the first, was still to come."""
    drawn = None if outline is None else [outline.kind, [list(vertex) for vertex in outline.vertices]]
    return {
        "object": int(record.id),
        "class": int(record.class_id),
        "plane": plane_entry(record.plane),
        "box": _box_entry(record.box),
        "prediction": _prediction_entry(record.prediction),
        "before": _patch_entry(record.before),
        "extent": None if record.extent is None else [int(edge) for edge in record.extent],
        "turn": int(record.turn),
        "problem": record.problem,
        "points": [[float(p.row), float(p.col), int(p.positive)] for p in record.points],
        "trail": [
            {"prediction": _prediction_entry(mask.prediction), "painted": _patch_entry(mask.painted)}
            for mask in record.masks_before
        ],
        "waiting": waiting,
        "outline": drawn,
    }


def read_object(entry: Json, shape: tuple[int, ...]) -> tuple[ObjectRecord, bool]:
    """An object, and whether a mask of it was still to come. shape: of the image, which the object must fit."""
    plane = read_plane(entry["plane"], shape)
    size = shape[plane.displayed[0]], shape[plane.displayed[1]]
    points = tuple(
        Point(_number(r), _number(c), bool(whole_number(sign, 0, 1))) for r, c, sign in entry["points"]
    )
    masks_before = tuple(
        MaskBefore(_read_prediction(mask["prediction"], size), _read_patch(mask["painted"], size))
        for mask in entry["trail"]
    )
    if len(masks_before) not in (0, len(points)) or not all(point.inside(size) for point in points):
        raise ValueError("the clicks do not fit")
    problem = entry["problem"]
    record = ObjectRecord(
        id=whole_number(entry["object"], 1, 2**62),
        class_id=whole_number(entry["class"], 1, MOST_OBJECTS),
        plane=plane,
        box=_read_box(entry["box"]),
        prediction=_read_prediction(entry["prediction"], size),
        before=_read_patch(entry["before"], size),
        extent=_read_bounds(entry["extent"], size),
        turn=whole_number(entry["turn"], 0, 2**62),
        problem=None if problem is None else _text(problem)[:1000],
        points=points,
        masks_before=masks_before if points else (),
    )
    return record, entry["waiting"] is True


def read_outline(entry: Json) -> Outline | None:
    """What was drawn for an object; None for a box or nothing."""
    if entry["outline"] is None:
        return None
    kind, vertices = entry["outline"]
    if kind not in KINDS or not LEAST_VERTICES <= len(vertices) <= MOST_VERTICES:
        raise ValueError("the outline is not a shape")
    return Outline(kind, tuple((_number(row), _number(col)) for row, col in vertices))


# pixels -------------------------------------------------------------------------------------------------------


def pixels_entry(pixels: Pixels) -> Json:
    return {
        "pixels": int(pixels.label),
        "plane": plane_entry(pixels.plane),
        "mask": _patch_entry(pixels.patch),
    }


def read_pixels(entry: Json, shape: tuple[int, ...]) -> Pixels:
    plane = read_plane(entry["plane"], shape)
    patch = _read_patch(entry["mask"], (shape[plane.displayed[0]], shape[plane.displayed[1]]))
    if patch is None:
        raise ValueError("pixels without a mask")
    return Pixels(plane, whole_number(entry["pixels"], 1, 2**62), patch)


# parts --------------------------------------------------------------------------------------------------------


def plane_entry(plane: PlaneKey) -> list[Any]:
    index = [None if place is None else int(place) for place in plane.index]
    return [index, [int(axis) for axis in plane.displayed]]


def read_plane(entry: Any, shape: tuple[int, ...]) -> PlaneKey:
    """A plane of an image of that shape."""
    index, displayed = entry
    row, col = (whole_number(axis, 0, len(index) - 1) for axis in displayed)
    if len(index) != len(shape) or row >= col:
        raise ValueError("the plane has other axes than the image")
    places = tuple(
        None if place is None else whole_number(place, 0, shape[axis] - 1) for axis, place in enumerate(index)
    )
    if places[row] is not None or places[col] is not None:
        raise ValueError("the plane's own axes have an index")
    return PlaneKey(places, (row, col))


def _box_entry(box: Box | None) -> list[float] | None:
    return None if box is None else [float(edge) for edge in (box.r0, box.c0, box.r1, box.c1)]


def _read_box(entry: Any) -> Box | None:
    if entry is None:
        return None
    r0, c0, r1, c1 = (_number(edge) for edge in entry)
    if r1 <= r0 or c1 <= c0:
        raise ValueError("the box has no area")
    return Box(r0, c0, r1, c1)


def _prediction_entry(found: Prediction | None) -> Json | None:
    if found is None:
        return None
    field, iou = found.field, float(found.iou)
    return {
        "box": _box_entry(found.box),
        "mask": _patch_entry(found.patch),
        "iou": iou if math.isfinite(iou) else 0.0,
        "key": found.key,
        "field": [int(field.row), int(field.col), int(field.height), int(field.width), field.kind],
    }


def _read_prediction(entry: Any, size: tuple[int, int]) -> Prediction | None:
    if entry is None:
        return None
    patch = _read_patch(entry["mask"], size)
    row, col, height, width, kind = entry["field"]
    if patch is None or kind not in ("whole", "grid", "centred"):
        raise ValueError("the prediction is incomplete")
    field = Field(
        whole_number(row, 0, size[0] - 1),
        whole_number(col, 0, size[1] - 1),
        whole_number(height, 1, size[0]),
        whole_number(width, 1, size[1]),
        kind,
    )
    iou, key = _number(entry["iou"]), _text(entry["key"])
    return Prediction(_read_box(entry["box"]), patch.row, patch.col, patch.mask, iou, key, field)


def _patch_entry(patch: Patch | None) -> list[Any] | None:
    """(row, col, height, width, bits): the mask's rows one after the other, packed, compressed, as base64."""
    if patch is None:
        return None
    height, width = patch.mask.shape
    bits = zlib.compress(np.packbits(patch.mask).tobytes(), 1)
    return [int(patch.row), int(patch.col), height, width, base64.b64encode(bits).decode("ascii")]


def _read_patch(entry: Any, size: tuple[int, int]) -> Patch | None:
    """A mask inside a plane (H, W). Never unpacks more than the mask may hold."""
    if entry is None:
        return None
    row, col, height, width, text = entry
    row, height = whole_number(row, 0, size[0]), whole_number(height, 0, size[0])
    col, width = whole_number(col, 0, size[1]), whole_number(width, 0, size[1])
    if row + height > size[0] or col + width > size[1] or height * width > MOST_PIXELS:
        raise ValueError("the mask leaves its plane")
    return Patch(row, col, _unpacked(base64.b64decode(_text(text), validate=True), height, width))


def _unpacked(packed: bytes, height: int, width: int) -> npt.NDArray[np.bool_]:
    wanted = (height * width + 7) // 8
    unzip = zlib.decompressobj()
    try:
        bits = unzip.decompress(packed, wanted + 1)
    except zlib.error as error:
        raise ValueError("the mask is broken") from error
    if len(bits) != wanted:
        raise ValueError("the mask has another size")
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width)
    return flat.view(np.bool_).reshape(height, width)


def _read_bounds(entry: Any, size: tuple[int, int]) -> Bounds | None:
    if entry is None:
        return None
    r0, c0, r1, c1 = entry
    r0, c0 = whole_number(r0, 0, size[0]), whole_number(c0, 0, size[1])
    return r0, c0, whole_number(r1, r0, size[0]), whole_number(c1, c0, size[1])


def whole_number(value: Any, low: int, high: int = 2**62) -> int:
    """The value itself. Raises ValueError where it is no whole number of that range."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is not a whole number from {low} to {high}")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not text")
    return value


def _color(value: Any) -> str:
    text = _text(value)
    if re.fullmatch("#[0-9a-fA-F]{6}", text) is None:
        raise ValueError(f"{text!r:.40} is not a colour")
    return text
