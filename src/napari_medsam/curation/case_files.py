"""Cases on disk: a .npz as MedSAM's published code reads it, and a JSON sidecar. docs/case-format.md describes both."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from napari_medsam.curation.case import Case, CaseObject
from napari_medsam.curation.check import check_labels, normalised, present_labels
from napari_medsam.curation.formats.medsam import (
    ARRAYS,
    MARKER,
    arrays_of,
    pack_predictions,
    published_boxes,
    published_spacing,
    unpack_prediction,
    upstream_warnings,
)
from napari_medsam.curation.formats.published import read_published
from napari_medsam.curation.formats.sidecar import (
    Sidecar,
    described,
    meaning,
    read_sidecar,
    read_with_meaning,
    sidecar_path,
    write_sidecar,
)
from napari_medsam.curation.npz import read_headers, read_npz, write_npz
from napari_medsam.curation.problem import BrokenCase
from napari_medsam.files import replacing


def write_case(folder: Path, case: Case) -> Path:
    """Write `case` into `folder` and return the path of its .npz; the same content again changes nothing.

    The name is a readable prefix and a hash of the content. The .npz takes its name first, the sidecar last:
    a case counts once both are there, so a kill at any moment leaves either no case or a whole one.

    Raises BrokenCase (a CaseError): see `check.normalised`; the folder cannot be written.
    """
    return write_prepared(folder, prepared(case, Path(folder)))


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as it is stored: its sidecar without time and warnings, and its predictions packed."""

    case: Case
    sidecar: Sidecar
    runs: np.ndarray

    @property
    def digest(self) -> str:
        """The content hash."""
        return self.sidecar.content_sha256


def prepared(case: Case, where: Path) -> PreparedCase:
    """Return `case` ready to be written. Raises BrokenCase naming `where`; see `check.normalised`."""
    case = normalised(case, where)
    runs, sidecar = pack_predictions(case.objects), described(case)
    digest = _digest(meaning(sidecar), case, runs)
    return PreparedCase(
        case, replace(sidecar, content_sha256=digest, image_sha256=image_hash(case.imgs)), runs
    )


def write_prepared(folder: Path, ready: PreparedCase) -> Path:
    """Write a prepared case, as `write_case` does."""
    case = ready.case
    path = Path(folder) / f"{_stem(case, ready.digest)}.npz"
    if stored_hash(path) == ready.digest:
        return path
    created = case.created or datetime.now(UTC).isoformat(timespec="seconds")
    sidecar = replace(ready.sidecar, created=created, warnings=tuple(upstream_warnings(case)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            write_npz(stream, arrays_of(case, ready.runs))
        write_sidecar(sidecar_path(path), sidecar)
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
                sidecar_path(path), "is missing", "The export was interrupted: export the case again"
            )
        return read_published(path)
    arrays = read_npz(path, ARRAYS)
    sidecar, hashed = read_with_meaning(path)
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise BrokenCase(path, f"lacks the arrays {missing}", "Export the case again")
    try:
        case = _assembled(arrays, sidecar, predictions)
    except ValueError as error:
        raise BrokenCase(path, str(error), "Export the case again") from error
    _check_stored(path, case, arrays, _digest(hashed, case, arrays["predictions"]), sidecar)
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
    return None if case is None else read_sidecar(path).content_sha256


def image_hash(imgs: np.ndarray) -> str:
    """Return the sha256 (hex) of the pixels alone: equal for two versions of one image's labels."""
    return _hash_arrays(hashlib.sha256(), imgs)


def _digest(hashed: bytes, case: Case, runs: np.ndarray) -> str:
    return _hash_arrays(hashlib.sha256(hashed), case.imgs, case.gts, runs)


def _hash_arrays(digest: hashlib._Hash, *arrays: np.ndarray) -> str:
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _stem(case: Case, digest: str) -> str:
    """The published inference takes a name that starts with 3D for a volume, and cuts names at a dot."""
    name = re.sub(r"\.(nii|ome)$", "", case.source.name, flags=re.IGNORECASE)  # left of .nii.gz and .ome.tif
    clean = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:48].strip("-") or "image"
    planes = [str(place) for place in case.source.index or () if place is not None]
    place = f"_{'-'.join(planes)}" if planes else ""
    return f"{case.gts.ndim}D_{clean}{place}_{digest[:16]}"


def _assembled(arrays: dict[str, np.ndarray], sidecar: Sidecar, predictions: bool) -> Case:
    """The case of both files. Raises ValueError for predictions or records that do not fit."""
    gts, runs = arrays["gts"], arrays["predictions"]
    if runs.ndim != 2 or runs.shape[1] != 3 or runs.dtype.kind != "i":
        raise ValueError(f"predictions have shape {runs.shape}")
    objects = []
    for item in sidecar.objects:
        mask = unpack_prediction(runs, item.label, gts.shape) if predictions and item.predicted else None
        objects.append(CaseObject(**{**vars(item), "predicted": mask}))
    return Case(
        arrays["imgs"],
        gts,
        sidecar.spacing,
        tuple(objects),
        source=sidecar.source,
        contrast=sidecar.contrast,
        field=sidecar.field,
        model=sidecar.model,
        group=sidecar.group,
        unit=sidecar.unit,
        created=sidecar.created,
    )


def _check_stored(
    path: Path, case: Case, arrays: dict[str, np.ndarray], digest: str, sidecar: Sidecar
) -> None:
    """Everything in both files is either hashed or follows from what is hashed."""
    check_labels(present_labels(case.gts), [o.label for o in case.objects], path)
    if digest != sidecar.content_sha256 or image_hash(case.imgs) != sidecar.image_sha256:
        what = "does not match its content hash: the arrays or the sidecar changed after the export"
        raise BrokenCase(path, what, "Put both files back from a backup or export the case again")
    again = normalised(case, path)
    for name, wanted in (("boxes", published_boxes(again)), ("spacing", published_spacing(again.spacing))):
        if not np.array_equal(arrays[name], wanted):
            raise BrokenCase(path, f"{name} do not follow from the sidecar", "Export the case again")
