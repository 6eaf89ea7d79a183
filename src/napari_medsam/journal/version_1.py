"""The lines of journals of version 1, in which an object had one plane, as lines of version 2."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def upgraded(text: bytes) -> bytes:
    """A line's JSON as version 2 has it. Raises ValueError, KeyError or TypeError for what was never a line."""
    try:
        entry = json.loads(text)
    except RecursionError as error:
        raise ValueError("the line is nested too deeply") from error
    return json.dumps(_upgraded(entry)).encode("ascii")


def _upgraded(entry: Json) -> Json:
    if "object" in entry:
        outline = _named(entry["outline"], "kind", "vertices")
        return {
            "part": _part(entry),
            "class": entry["class"],
            "waiting": entry["waiting"],
            "outline": outline,
        }
    if "pixels" in entry:
        plane, patch = _plane(entry["plane"]), _patch(entry["mask"])
        return {"pixels": {"plane": plane, "label": entry["pixels"], "patch": patch}}
    if "classes" in entry:
        return {"classes": [_named(known, "id", "name", "color") for known in entry["classes"]]}
    if "saved" in entry:
        return {"saved": [[object_id, None] for object_id in entry["saved"]]}
    return entry


def _part(entry: Json) -> Json:
    return {
        "object_id": entry["object"],
        "plane": _plane(entry["plane"]),
        "box": entry["box"],
        "points": [{"row": row, "col": col, "positive": bool(sign)} for row, col, sign in entry["points"]],
        "masks_before": [
            {"prediction": _prediction(mask["prediction"]), "painted": _patch(mask["painted"])}
            for mask in (entry["trail"] if entry["points"] else ())
        ],
        "prediction": _prediction(entry["prediction"]),
        "before": _patch(entry["before"]),
        "extent": entry["extent"],
        "turn": entry["turn"],
        "problem": entry["problem"],
    }


def _prediction(entry: Json | None) -> Json | None:
    if entry is None:
        return None
    field = _named(entry["field"], "row", "col", "height", "width", "kind")
    patch = _patch(entry["mask"]) or {}
    return {"box": entry["box"], **patch, "iou": entry["iou"], "key": entry["key"], "field": field}


def _patch(entry: list[Any] | None) -> Json | None:
    return None if entry is None else {"row": entry[0], "col": entry[1], "mask": entry[2:]}


def _plane(entry: list[Any]) -> Json | None:
    return _named(entry, "index", "displayed")


def _named(values: list[Any] | None, *names: str) -> Json | None:
    return None if values is None else dict(zip(names, values, strict=True))
