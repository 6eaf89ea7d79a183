"""The images or masks that lie in a folder and below it: pictures, NIfTI files, DICOM series, OME-Zarr folders."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from napari_medsam.image.read import is_image
from napari_medsam_training.corpus.left_out import Left, readable

Kind = Literal["picture", "nifti", "dicom", "seg", "zarr"]
SEG_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
_NIFTI = (".nii.gz", ".nii")
_DICOM = (".dcm", ".dicom", ".ima")
_DOUBLE = (".ome.tiff", ".ome.tif", ".ome.zarr")
_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "PatientID",
    "ReferencedSeriesSequence",
]


@dataclass(frozen=True, slots=True)
class Source:
    """One image or mask. key: its path under the folder without suffix; files: relative to the folder, POSIX.

    uid: of a DICOM series; of a DICOM segmentation, the series that it refers to. patient: DICOM's PatientID.
    """

    key: str
    files: tuple[str, ...]
    kind: Kind
    uid: str = ""
    patient: str = ""

    @property
    def name(self) -> str:
        """What to call it in a report: its file, or the folder of its series."""
        return self.files[0] if len(self.files) == 1 else f"{self.key}/ ({len(self.files)} files)"


def find_sources(folder: Path) -> tuple[list[Source], list[Left]]:
    """Everything under a folder, sorted by key; and every file that is none of these, with the reason.

    Of DICOM files only the header is read, of others only the name. A series is the files of one SeriesInstanceUID
    in one folder; its key is the folder, the file where it has but one.
    """
    sources: list[Source] = []
    left: list[Left] = []
    dicom: list[str] = []
    for name in _names(folder):
        path = folder / name
        kind = _kind(path)
        if path.is_dir():
            sources.append(Source(_without_suffix(name), (name,), "zarr"))
        elif PurePosixPath(name).name.startswith("."):
            left.append(Left(name, "hidden-file", "Its name begins with a dot."))
        elif kind == "dicom":
            dicom.append(name)
        elif kind is not None:
            sources.append(Source(_without_suffix(name), (name,), kind))
        else:
            known = "PNG, JPEG, BMP, TIFF, .npy, NIfTI, DICOM, Zarr"
            left.append(
                Left(name, "unknown-format", f"Files of this kind are not read; convert it to {known}.")
            )
    series, broken = _series(folder, dicom)
    return sorted([*sources, *series], key=lambda source: (source.key, source.files)), [*left, *broken]


def _names(folder: Path) -> Iterator[str]:
    """Files and Zarr folders, relative, in a fixed order; nothing inside a Zarr folder."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in list(folders):
            if is_image(Path(place, name)):
                folders.remove(name)
                yield Path(place, name).relative_to(folder).as_posix()
        for name in sorted(files):
            yield Path(place, name).relative_to(folder).as_posix()


def _kind(path: Path) -> Kind | None:
    name = path.name.lower()
    if name.endswith(_NIFTI):
        return "nifti"
    if name.endswith(_DICOM) or (not path.suffix and _says_dicom(path)):
        return "dicom"
    return "picture" if is_image(path) else None


def _says_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _without_suffix(name: str) -> str:
    lower = name.lower()
    for suffix in (*_NIFTI, *_DOUBLE, PurePosixPath(name).suffix.lower()):
        if suffix and lower.endswith(suffix):
            return name[: -len(suffix)]
    return name


def _series(folder: Path, names: Iterable[str]) -> tuple[list[Source], list[Left]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    facts: dict[tuple[str, str], tuple[Kind, str, str]] = {}
    left = []
    for name in names:
        try:
            uid, fact = _header(folder / name)
        except Exception as error:  # pydicom fails in many ways on bytes that are not DICOM
            left.append(Left(name, "unreadable", readable(error, folder)))
            continue
        place = (PurePosixPath(name).parent.as_posix(), uid if fact[0] == "dicom" else name)
        found[place].append(name)
        facts[place] = fact
    in_folder: dict[str, int] = defaultdict(int)
    for parent, _ in (place for place, files in found.items() if len(files) > 1):
        in_folder[parent] += 1
    sources = []
    for place, files in found.items():
        kind, uid, patient = facts[place]
        key = _without_suffix(files[0])
        if len(files) > 1:
            key = place[0] if in_folder[place[0]] == 1 else f"{place[0]}/{uid}"
        sources.append(Source(key, tuple(sorted(files)), kind, uid, patient))
    return sources, left


def _header(path: Path) -> tuple[str, tuple[Kind, str, str]]:
    """Series UID; kind, the UID to match by, patient."""
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    uid = str(header.get("SeriesInstanceUID", ""))
    if not uid:
        raise ValueError("no SeriesInstanceUID")
    patient = str(header.get("PatientID", "") or "")
    if header.get("SOPClassUID") == SEG_CLASS:
        refers = header.get("ReferencedSeriesSequence") or [{}]
        return uid, ("seg", str(refers[0].get("SeriesInstanceUID", "")), patient)
    return uid, ("dicom", uid, patient)
