"""The JSON beside each case: what the published .npz cannot hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

from napari_medsam.curation.layout import upstream_warnings
from napari_medsam.curation.problem import BrokenCase, NewerFormat
from napari_medsam.files import replacing

if TYPE_CHECKING:
    from napari_medsam.curation.case import Case, CaseObject

CASE_FORMAT = "napari-medsam case"
CASE_VERSION = 1
MAX_JSON_BYTES = 256 * 2**20
_UNHASHED_SOURCE = ("layer", "path")  # where it lay, not what it is: a renamed layer is the same case

T = TypeVar("T")


def sidecar_path(npz: Path) -> Path:
    return npz.with_name(npz.name.removesuffix(".npz") + ".json")


def describe(case: Case) -> dict[str, Any]:
    """Return everything about a normalised `case` but its arrays and its time, as JSON values."""
    return {
        "format": CASE_FORMAT,
        "version": CASE_VERSION,
        "shape": list(case.gts.shape),
        "spacing": list(case.spacing),
        "unit": case.unit,
        "classes": [
            {"id": i, "name": n} for i, n in sorted({o.class_id: o.class_name for o in case.objects}.items())
        ],
        "contrast": case.contrast,
        "field": case.field,
        "model": case.model,
        "group": case.group,
        "source": case.source,
        "objects": [_describe_object(o) for o in case.objects],
    }


def _describe_object(item: CaseObject) -> dict[str, Any]:
    return {
        "label": item.label,
        "source_label": item.source_label,
        "class_id": item.class_id,
        "class_name": item.class_name,
        "box": None if item.box is None else list(item.box),
        "prompts": item.prompts,
        "predicted": item.predicted is not None,
        "predicted_iou": item.predicted_iou,
        "corrected": item.corrected,
    }


def meaning(description: dict[str, Any]) -> bytes:
    """Return the part of a description that makes two cases the same or not, as canonical bytes."""
    source = {k: v for k, v in description["source"].items() if k not in _UNHASHED_SOURCE}
    return json.dumps(
        {**description, "source": source}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("ascii")


def same_place(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two cases' sources name the same plane: index, and file name or else layer name.

    Folders are not compared: data moves from disk to disk.
    """
    return a.get("index") == b.get("index") and source_name(a) == source_name(b)


def source_name(source: Mapping[str, Any]) -> str:
    """Return the file's name without its suffix, the layer's name where there is no file."""
    path = source.get("path")
    return PureWindowsPath(path).stem if isinstance(path, str) and path else str(source.get("layer", "image"))


def write_sidecar(path: Path, case: Case, hashes: dict[str, str], created: str) -> None:
    """Write the sidecar of a normalised `case` to `path`, whole or not at all. Raises OSError."""
    extra = {**hashes, "created": created, "warnings": upstream_warnings(case)}
    write_json(path, {**describe(case), **extra})


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` as readable JSON, whole or not at all. Raises OSError."""
    text = json.dumps(data, indent=1, allow_nan=False)
    with replacing(path) as stream:
        stream.write(text.encode("ascii") + b"\n")


def read_json(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Return the JSON object at `path`, which must say it is of format `kind` and at most of `version`.

    Raises BrokenCase: missing, too long, not JSON, of another format, or written by a newer version.
    """
    again = "Export again, or delete the file"
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BrokenCase(path, f"is longer than {MAX_JSON_BYTES} bytes", "Delete it unless you wrote it")
        data = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise BrokenCase(path, "is missing", "Put it back from a backup or export the case again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenCase(path, f"cannot be read as JSON ({error})", again) from error
    if not isinstance(data, dict) or data.get("format") != kind:
        raise BrokenCase(path, f"is not a {kind!r} file", again)
    if field(data, "version", int, path) > version:
        raise NewerFormat(path, f"is of version {data['version']}", "Update napari-medsam to read it")
    return data


def read_sidecar(npz: Path) -> dict[str, Any]:
    """Return the sidecar of the case at `npz`, its fields checked for their types. Raises BrokenCase."""
    path = sidecar_path(npz)
    data = read_json(path, CASE_FORMAT, CASE_VERSION)
    for key, kind in (("content_sha256", str), ("image_sha256", str), ("field", str), ("unit", str)):
        field(data, key, kind, path)
    for key in ("source", "contrast", "model"):
        field(data, key, dict, path)
    if not isinstance(data.get("group", 0), str | None):
        raise BrokenCase(path, "has a group that is not text", "Export the case again")
    for key in ("shape", "spacing"):
        if not all(_is_number(v) for v in field(data, key, list, path)):
            raise BrokenCase(path, f"{key!r} is not a list of numbers", "Export the case again")
    field(data, "classes", list, path)
    for item in field(data, "objects", list, path):
        _check_object(item, path)
    return data


def _check_object(item: Any, path: Path) -> None:
    if not isinstance(item, dict):
        raise BrokenCase(path, f"lists the object {item!r}", "Export the case again")
    for key, kind in (("label", int), ("class_id", int), ("class_name", str), ("corrected", bool)):
        field(item, key, kind, path)
    field(item, "predicted", bool, path)
    field(item, "prompts", dict, path)
    for key in ("predicted_iou", "source_label"):
        if item.get(key, "") is not None and not _is_number(item.get(key)):
            raise BrokenCase(path, f"object {item['label']} has no sound {key}", "Export the case again")
    box = item.get("box", "")
    if box is not None and not (isinstance(box, list) and all(_is_number(v) for v in box)):
        raise BrokenCase(path, f"object {item['label']} has the box {box!r}", "Export the case again")


def field(data: dict[str, Any], key: str, kind: type[T], path: Path) -> T:
    """Return `data[key]`, which must be a `kind`; raises BrokenCase naming `path` otherwise."""
    value = data.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BrokenCase(
            path, f"{key!r} is {str(value)[:60]!r}, not {kind.__name__}", "Export the case again"
        )
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
