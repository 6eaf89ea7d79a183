"""One curated image or volume on disk: a .npz as MedSAM's published code reads it, and a JSON sidecar.

docs/case-format.md describes the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_medsam.curation.check import check_labels, normalised, present_labels
from napari_medsam.curation.foreign import read_foreign
from napari_medsam.curation.layout import (
    pack_predictions,
    published_boxes,
    published_spacing,
    unpack_prediction,
)
from napari_medsam.curation.npz import read_headers, read_npz, write_npz
from napari_medsam.curation.problem import BrokenCase
from napari_medsam.curation.sidecar import (
    CASE_VERSION,
    describe,
    meaning,
    read_sidecar,
    sidecar_path,
    source_name,
    write_sidecar,
)
from napari_medsam.files import replacing

MARKER = "napari_medsam_case"  # an array of this name tells our files from published ones
ARRAYS = ("imgs", "gts", "spacing", "boxes", "predictions", MARKER)


@dataclass(frozen=True, eq=False)
class CaseObject:
    """One labelled object of a case.

    box: what was drawn, half-open floats in plane pixels, (r0, c0, r1, c1); in a volume also
    (z0, r0, c0, z1, r1, c1). predicted: the mask before correction, bool on the grid of `gts`, or None when
    the model never saw the object. prompts: anything else that was drawn, as JSON values.
    source_label: its label where it came from, when the case numbers it otherwise.
    """

    label: int
    class_name: str
    class_id: int
    box: tuple[float, ...] | None = None
    predicted: np.ndarray | None = None
    corrected: bool = False
    predicted_iou: float | None = None
    source_label: int | None = None
    prompts: Mapping[str, Any] = dataclass_field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Case:
    """One image or volume with its corrected labels.

    imgs: (H, W, 3) uint8 as the model sees it, at the plane's full resolution, or (D, H, W) uint8.
    gts: (H, W) or (D, H, W) object labels, 0 = background. spacing: (row, col) or (z, row, col) in `unit`.
    source: layer, path, index, shape, dtype. created: ISO 8601 UTC; set when written, no part of the content.
    """

    imgs: np.ndarray
    gts: np.ndarray
    spacing: tuple[float, ...]
    objects: tuple[CaseObject, ...]
    source: Mapping[str, Any] = dataclass_field(default_factory=dict)
    contrast: Mapping[str, Any] = dataclass_field(default_factory=dict)
    field: str = "whole"
    model: Mapping[str, str] = dataclass_field(default_factory=dict)
    group: str | None = None
    unit: str = "pixel"
    created: str = ""


def write_case(folder: Path, case: Case) -> Path:
    """Write `case` into `folder` and return the path of its .npz; the same content again changes nothing.

    The name is a readable prefix and a hash of the content. The .npz takes its name first, the sidecar last:
    a case counts once both are there, so a kill at any moment leaves either no case or a whole one.

    Raises BrokenCase (a CaseError): see `check.normalised`; the folder cannot be written.
    """
    return write_prepared(folder, prepared(case, Path(folder)))


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as it is stored, with its content hash and its predictions packed."""

    case: Case
    digest: str
    runs: np.ndarray


def prepared(case: Case, where: Path) -> PreparedCase:
    """Return `case` ready to be written. Raises BrokenCase naming `where`; see `check.normalised`."""
    case = normalised(case, where)
    runs = pack_predictions(case.objects)
    return PreparedCase(case, _digest(case, runs), runs)


def write_prepared(folder: Path, ready: PreparedCase) -> Path:
    """Write a prepared case, as `write_case` does."""
    case = ready.case
    path = Path(folder) / f"{_stem(case, ready.digest)}.npz"
    if stored_hash(path) == ready.digest:
        return path
    hashes = {"content_sha256": ready.digest, "image_sha256": image_hash(case.imgs)}
    created = case.created or datetime.now(UTC).isoformat(timespec="seconds")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            write_npz(stream, _arrays(case, ready.runs))
        write_sidecar(sidecar_path(path), case, hashes, created)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise BrokenCase(path, what, "Free some space or choose a folder you may write to") from error
    return path


def read_case(path: Path, *, predictions: bool = True) -> Case:
    """Return the case whose .npz (or .json) lies at `path`, checked against its hash.

    A .npz without a sidecar is read as a published MedSAM file: its objects are the labels in `gts`, their
    class is unknown. predictions=False leaves every `predicted` None and saves unpacking them.

    Raises BrokenCase (a CaseError): a file missing, truncated, changed since it was written, hostile, or from
    a newer version.
    """
    path = Path(path)
    path = path.with_suffix(".npz") if path.suffix == ".json" else path
    if not is_ours(path):
        if MARKER in read_headers(path):
            raise BrokenCase(
                sidecar_path(path), "is missing", "The export was cut short: export the case again"
            )
        return read_foreign(path)
    arrays, data = read_npz(path, ARRAYS), read_sidecar(path)
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise BrokenCase(path, f"lacks the arrays {missing}", "Export the case again")
    case = _assembled(path, arrays, data, predictions)
    _check_stored(path, case, arrays, data)
    return case


def is_ours(npz: Path) -> bool:
    """Whether the .npz has a sidecar. `dataset.json` is the manifest's name and no sidecar."""
    return npz.name != "dataset.npz" and sidecar_path(npz).is_file()


def content_hash(case: Case) -> str:
    """Return the sha256 (hex) of what `case` means: arrays, objects, provenance; not its time or place.

    The layer's name and the file's path are left out: the same plane opened twice is the same case.
    Raises BrokenCase when the case could not be written.
    """
    return prepared(case, Path("case")).digest


def stored_hash(path: Path) -> str | None:
    """Return the content hash of the whole and sound case at `path`, None when there is none."""
    try:
        case = read_case(path, predictions=False) if is_ours(path) else None
    except BrokenCase:
        return None
    return None if case is None else str(read_sidecar(path)["content_sha256"])


def image_hash(imgs: np.ndarray) -> str:
    """Return the sha256 (hex) of the pixels alone: equal for two versions of one image's labels."""
    return _hash_arrays(hashlib.sha256(), imgs)


def _digest(case: Case, runs: np.ndarray) -> str:
    return _hash_arrays(hashlib.sha256(meaning(describe(case))), case.imgs, case.gts, runs)


def _hash_arrays(digest: hashlib._Hash, *arrays: np.ndarray) -> str:
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _stem(case: Case, digest: str) -> str:
    """The published inference takes a name that starts with 3D for a volume, and cuts names at a dot."""
    name = re.sub(
        r"\.(nii|ome)$", "", source_name(case.source), flags=re.IGNORECASE
    )  # what is left of .nii.gz and .ome.tif
    clean = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:48].strip("-") or "image"
    index = case.source.get("index") or []
    planes = [f"{v}" for v in index if isinstance(v, int)] if isinstance(index, list) else []
    place = f"_{'-'.join(planes)}" if planes else ""
    return f"{case.gts.ndim}D_{clean}{place}_{digest[:16]}"


def _arrays(case: Case, runs: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "imgs": case.imgs,
        "gts": case.gts,
        "spacing": published_spacing(case.spacing),
        "boxes": published_boxes(case),
        "predictions": runs,
        MARKER: np.array(CASE_VERSION, np.int64),
    }


def _assembled(path: Path, arrays: dict[str, np.ndarray], data: dict[str, Any], predictions: bool) -> Case:
    gts, runs = arrays["gts"], arrays["predictions"]
    if runs.ndim != 2 or runs.shape[1] != 3 or runs.dtype.kind != "i":
        raise BrokenCase(path, f"predictions have shape {runs.shape}", "Export the case again")
    objects = []
    for item in data["objects"]:
        kept = {
            k: item[k] for k in ("label", "class_name", "class_id", "corrected", "predicted_iou", "prompts")
        }
        try:
            wanted = predictions and item["predicted"]
            mask = unpack_prediction(runs, item["label"], gts.shape) if wanted else None
        except ValueError as error:
            raise BrokenCase(path, str(error), "Export the case again") from error
        box = None if item["box"] is None else tuple(item["box"])
        objects.append(CaseObject(**kept, box=box, predicted=mask, source_label=item["source_label"]))
    named = {k: data[k] for k in ("source", "contrast", "field", "model", "group", "unit")}
    spacing, created = tuple(data["spacing"]), str(data.get("created", ""))
    return Case(arrays["imgs"], gts, spacing, tuple(objects), **named, created=created)


def _check_stored(path: Path, case: Case, arrays: dict[str, np.ndarray], data: dict[str, Any]) -> None:
    """Everything in both files is either hashed or follows from what is hashed."""
    check_labels(present_labels(case.gts), [o.label for o in case.objects], path)
    known = {key: data[key] for key in describe(case)}
    found = _hash_arrays(hashlib.sha256(meaning(known)), case.imgs, case.gts, arrays["predictions"])
    if found != data["content_sha256"] or image_hash(case.imgs) != data["image_sha256"]:
        what = "does not match its content hash: the arrays or the sidecar changed after the export"
        raise BrokenCase(path, what, "Put both files back from a backup or export the case again")
    again = normalised(case, path)
    for name, wanted in (("boxes", published_boxes(again)), ("spacing", published_spacing(again.spacing))):
        if not np.array_equal(arrays[name], wanted):
            raise BrokenCase(path, f"{name} do not follow from the sidecar", "Export the case again")
