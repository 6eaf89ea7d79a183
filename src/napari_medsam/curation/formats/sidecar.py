"""The JSON beside each case: what the published .npz cannot hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_medsam.curation.case import Case, CaseObject, ContrastRecord, ModelRecord, Prompts, Provenance
from napari_medsam.curation.json_file import parsed, read_record, read_text
from napari_medsam.curation.problem import BrokenCase
from napari_medsam.files import replacing
from napari_medsam.records import plain

CASE_FORMAT = "napari-medsam case"
CASE_VERSION = 1
_UNHASHED = ("content_sha256", "image_sha256", "created", "warnings")
_UNHASHED_SOURCE = ("layer", "path")  # where it lay, not what it is: a renamed layer is the same case


@dataclass(frozen=True)
class ClassName:
    """A class of a case."""

    id: int
    name: str


@dataclass(frozen=True)
class SidecarObject:
    """What the sidecar says of one object. predicted: whether there is a prediction; its runs are in the .npz."""

    label: int
    source_label: int | None
    class_id: int
    class_name: str
    box: tuple[float, ...] | None
    prompts: Prompts
    predicted: bool
    predicted_iou: float | None
    corrected: bool


@dataclass(frozen=True)
class Sidecar:
    """A sidecar as it stands in the file, in the order of its keys."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: str
    classes: tuple[ClassName, ...]
    contrast: ContrastRecord
    field: str
    model: ModelRecord
    group: str | None
    source: Provenance
    objects: tuple[SidecarObject, ...]
    content_sha256: str
    image_sha256: str
    created: str = ""
    warnings: tuple[str, ...] = ()


def sidecar_path(npz: Path) -> Path:
    return npz.with_name(npz.name.removesuffix(".npz") + ".json")


def described(case: Case) -> Sidecar:
    """The sidecar of a normalised case, without hashes, time and warnings."""
    classes = {item.class_id: item.class_name for item in case.objects}
    return Sidecar(
        shape=case.gts.shape,
        spacing=case.spacing,
        unit=case.unit,
        classes=tuple(ClassName(*known) for known in sorted(classes.items())),
        contrast=case.contrast,
        field=case.field,
        model=case.model,
        group=case.group,
        source=case.source,
        objects=tuple(_described_object(item) for item in case.objects),
        content_sha256="",
        image_sha256="",
    )


def _described_object(item: CaseObject) -> SidecarObject:
    return SidecarObject(**{**vars(item), "predicted": item.predicted is not None})


def meaning(sidecar: Sidecar) -> bytes:
    """What makes two cases the same or not, as canonical bytes."""
    return _meaning(_told(sidecar))


def _told(sidecar: Sidecar) -> dict[str, object]:
    return {"format": CASE_FORMAT, "version": CASE_VERSION, **plain(sidecar)}


def _meaning(told: Mapping[str, object]) -> bytes:
    source = told["source"]
    assert isinstance(source, dict)
    hashed = {key: value for key, value in told.items() if key not in _UNHASHED}
    hashed["source"] = {key: value for key, value in source.items() if key not in _UNHASHED_SOURCE}
    return json.dumps(hashed, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write a sidecar to `path` as readable JSON, whole or not at all. Raises OSError."""
    with replacing(path) as stream:
        stream.write(json.dumps(_told(sidecar), indent=1, allow_nan=False).encode("ascii") + b"\n")


def read_sidecar(npz: Path) -> Sidecar:
    """The sidecar of the case at `npz`. Raises BrokenCase naming the field that is wrong."""
    return read_record(sidecar_path(npz), Sidecar, CASE_FORMAT, CASE_VERSION)


def read_with_meaning(npz: Path) -> tuple[Sidecar, bytes]:
    """The sidecar of the case at `npz` and the canonical bytes of what was hashed. Raises BrokenCase.

    The bytes come from the file itself: what a later version or another program added belongs to the content.
    """
    path = sidecar_path(npz)
    text = read_text(path, CASE_FORMAT, CASE_VERSION)
    sidecar = parsed(path, Sidecar, text)
    known = {"format", "version", *Sidecar.__dataclass_fields__}
    told = json.loads(text)
    try:
        return sidecar, _meaning({key: told[key] for key in told if key in known})
    except ValueError as error:
        raise BrokenCase(path, f"cannot be read ({error})", "Export the case again") from error
