"""Journals of version 1, in which an object had one plane, are read as they were meant."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journal_desk import SHAPE, Table, identity, key

from napari_medsam.geometry import Box
from napari_medsam.image.field import Field
from napari_medsam.image.identity import ImageIdentity
from napari_medsam.journal.format import Outline, read_part, sealed
from napari_medsam.journal.recovery import Recovered, UnsavedJournal, find_unsaved
from napari_medsam.journal.version_1 import upgraded
from napari_medsam.segment.prompt import Point

Json = dict[str, Any]


def plane(z: int) -> list:
    return [[z, None, None], [1, 2]]


def mask(row: int, col: int, pixels: np.ndarray) -> list:
    bits = base64.b64encode(zlib.compress(np.packbits(pixels).tobytes(), 1)).decode()
    return [row, col, *pixels.shape, bits]


FULL = np.ones((6, 9), bool)
FOUND = {
    "box": [4.0, 5.0, 10.5, 14.0],
    "mask": mask(4, 5, FULL),
    "iou": 0.75,
    "key": "k",
    "field": [0, 0, 32, 32, "centred"],
}


def line(number: int, z: int = 0, **more: Any) -> Json:
    """An object's line with a box and a mask."""
    whole: Json = {
        "object": number,
        "class": 1,
        "plane": plane(z),
        "box": [4.0, 5.0, 10.5, 14.0],
        "prediction": FOUND,
        "before": None,
        "extent": [4, 5, 10, 14],
        "turn": number,
        "problem": None,
        "points": [],
        "trail": [],
        "waiting": False,
        "outline": None,
    }
    return {**whole, **more}


def pixels(number: int, z: int = 0, patch: np.ndarray = FULL) -> Json:
    return {"pixels": number, "plane": plane(z), "mask": mask(4, 5, patch)}


def left(folder: Path, *lines: Json) -> UnsavedJournal:
    """A journal of version 1 with these lines, found again."""
    image: ImageIdentity = identity()
    about = {"key": image.key, "shape": SHAPE, "dtype": image.dtype, "path": None, "name": "stack"}
    header = {
        "format": "napari-medsam journal",
        "version": 1,
        "image": about,
        "channel_axis": None,
        "begun": 1.5,
    }
    place = folder / "v1" / image.key
    place.mkdir(parents=True)
    texts = [json.dumps(entry).encode() for entry in (header, *lines)]
    (place / "20260102-030405-0a1b2c3d.jsonl").write_bytes(b"".join(map(sealed, texts)))
    [found] = find_unsaved(folder, image)
    return found


def read(folder: Path, *lines: Json) -> Recovered:
    found = left(folder, *lines).read()
    assert found.broken == 0
    return found


def test_every_field_of_an_object_is_that_of_its_part(tmp_path: Path) -> None:
    trail = [{"prediction": FOUND, "painted": None}, {"prediction": None, "painted": mask(4, 5, FULL)}]
    found = read(
        tmp_path,
        {"classes": [[1, "cell", "#123456"], [3, "nucleus", "#abcdef"]]},
        line(
            7,
            2,
            points=[[5.25, 6.0, 1], [8.0, 7.0, 0]],
            trail=trail,
            before=mask(4, 5, FULL[:2]),
            problem="no",
            waiting=True,
            outline=["polygon", [[4.0, 5.0], [9.0, 6.0], [8.0, 13.0]]],
            **{"class": 3},
        ),
        pixels(7, 2),
    )
    assert [(known.id, known.name, known.color) for known in found.classes] == [
        (1, "cell", "#123456"),
        (3, "nucleus", "#abcdef"),
    ]
    [record] = found.objects
    assert (record.id, record.class_id, list(record.parts)) == (7, 3, [key(2)])
    part = record.parts[key(2)]
    assert (part.object_id, part.box, part.turn, part.problem) == (7, Box(4, 5, 10.5, 14), 7, "no")
    assert (part.extent, part.origin, part.score) == ((4, 5, 10, 14), "drawn", None)
    assert part.points == (Point(5.25, 6.0), Point(8.0, 7.0, positive=False))
    assert part.prediction is not None
    assert (part.prediction.row, part.prediction.col, part.prediction.iou) == (4, 5, 0.75)
    assert (part.prediction.box, part.prediction.key) == (part.box, "k")
    assert part.prediction.field == Field(0, 0, 32, 32, "centred")
    assert np.array_equal(part.prediction.mask, FULL)
    assert part.before is not None
    assert part.before.box == (4, 5, 6, 14)
    assert part.masks_before[0].prediction is not None
    assert part.masks_before[1].painted is not None
    assert part.masks_before[1].painted.box == (4, 5, 10, 14)
    assert found.waiting == {(7, key(2))}
    assert found.outlines == {(7, key(2)): Outline("polygon", ((4.0, 5.0), (9.0, 6.0), (8.0, 13.0)))}
    [drawn] = found.pixels
    assert (drawn.label, drawn.plane, drawn.patch.box) == (7, key(2), (4, 5, 10, 14))
    assert found.unsaved == {(7, key(2))}


def test_an_object_that_moved_is_on_its_last_plane_only(tmp_path: Path) -> None:
    found = read(tmp_path, line(1), pixels(1), line(1, 2), {"gone": "p1@[0, None, None][1, 2]"}, pixels(1, 2))
    assert [list(record.parts) for record in found.objects] == [[key(2)]]
    assert [entry.plane for entry in found.pixels] == [key(2)]


def test_paint_on_another_plane_becomes_a_painted_part(tmp_path: Path) -> None:
    erased = np.zeros((6, 9), bool)
    journal = left(tmp_path, line(1), pixels(1), pixels(1, 1, FULL[:3]), pixels(1, 2, erased), pixels(5, 1))
    assert (journal.objects, journal.unsaved) == (1, 1)
    found = journal.read()
    [record] = found.objects  # nothing says what the label 5 is: its pixels come back, and no object
    assert list(record.parts) == [key(0), key(1)]
    part = record.parts[key(1)]
    assert (part.extent, part.box, part.origin) == ((4, 5, 7, 14), None, "drawn")
    assert part.corrected
    assert part.before is not None
    assert not part.before.mask.any()
    assert (1, key(1)) in found.unsaved


def test_what_is_gone_is_gone_and_what_was_exported_needs_no_export(tmp_path: Path) -> None:
    journal = left(
        tmp_path,
        line(1),
        pixels(1),
        line(2),
        pixels(2),
        {"gone": "o1"},
        {"gone": "p1@[0, None, None][1, 2]"},
        line(3, 1),
        pixels(3, 1),
        {"saved": [2]},
    )
    assert (journal.objects, journal.unsaved) == (2, 1)
    found = journal.read()
    assert [record.id for record in found.objects] == [2, 3]
    assert found.unsaved == {(3, key(1))}
    assert [entry.label for entry in found.pixels] == [2, 3]


@pytest.mark.parametrize(
    "entry", [[], 3, {"object": 1}, {"saved": 4}, {"pixels": 1, "plane": 5, "mask": None}]
)
def test_a_line_that_never_was_one_costs_nothing_else(tmp_path: Path, entry: Any) -> None:
    found = left(tmp_path, line(2), pixels(2), entry).read()
    assert found.broken == 1
    assert [record.id for record in found.objects] == [2]


def test_a_wrong_field_is_named() -> None:
    for change, path in (
        ({"box": [1.0, 2.0, 3.0, "4"]}, r"part\.box\[3\] "),
        ({"points": [[1.0, 2.0, 1], [True, 2.0, 1]], "trail": []}, r"part\.points\[1\]\.row "),
        ({"prediction": {**FOUND, "mask": mask(58, 5, FULL)}}, r"part\.prediction\.mask leaves its plane"),
        (
            {"prediction": {**FOUND, "field": [0, 0, 99, 9, "whole"]}},
            r"part\.prediction\.field leaves its plane",
        ),
        ({"prediction": {**FOUND, "field": [0, 0, 0, 9, "whole"]}}, r"part\.prediction\.field has no area"),
        ({"extent": [9, 5, 4, 14]}, r"part\.extent leaves its plane"),
        ({"extent": [4.5, 5, 10, 14]}, r"part\.extent is not of whole pixels"),
        ({"before": [1, 1, 9, 9, "eJw="]}, r"part\.before\.mask "),
        ({"plane": [[3, None, None], [1, 2]]}, r"plane\.index\[0\]"),
        ({"class": 0}, "class is not from 1"),
    ):
        with pytest.raises(ValueError, match=path):
            read_part(upgraded(json.dumps(line(1, **change)).encode()), SHAPE)


def test_what_was_restored_from_it_is_written_as_version_2(tmp_path: Path) -> None:
    found = read(tmp_path / "old", line(1), pixels(1), pixels(1, 1))
    table = Table(tmp_path / "new")
    for record in found.objects:
        table.document.restore(record)
    table.labels[:2, 4:10, 5:14] = 1
    table.tell()
    table.journal.close()
    assert b'"version":2' in table.journal.path.read_bytes()
    [again] = find_unsaved(tmp_path / "new", identity())
    assert [list(record.parts) for record in again.read().objects] == [[key(0), key(1)]]
