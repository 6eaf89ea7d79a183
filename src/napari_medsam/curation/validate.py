"""Everything that is wrong in a dataset folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from napari_medsam.curation.case_files import is_ours, read_case
from napari_medsam.curation.folder import Scan, scan
from napari_medsam.curation.formats.medsam import ARRAYS, PUBLISHED_ARRAYS
from napari_medsam.curation.formats.sidecar import read_sidecar, sidecar_path
from napari_medsam.curation.manifest import MANIFEST_NAME, Manifest, read_manifest
from napari_medsam.curation.npz import read_headers
from napari_medsam.curation.problem import BrokenCase, Problem


def validate_folder(folder: Path) -> list[Problem]:
    """Return what is wrong with manifest, files and cases in `folder`; an empty list when all is well.

    Each case is read once, one at a time; nothing is unpickled, executed or changed. A folder of published
    files needs no manifest. Raises BrokenCase when the folder cannot be listed.
    """
    found = scan(folder)
    problems = [*_listed(folder, found)]
    manifest, broken = _manifest(folder, found)
    problems += broken
    if manifest is not None:
        problems += _manifest_problems(folder, manifest, found)
    hashes = {} if manifest is None else {e.stem: e.content_sha256 for e in manifest.cases}
    classes = {} if manifest is None else {c.id: c.name for c in manifest.classes}
    for stem in sorted(found.ours | found.published):
        problems += _case_problems(folder / f"{stem}.npz", hashes.get(stem), classes)
    return problems


def _listed(folder: Path, found: Scan) -> Iterator[Problem]:
    again = "Export the case again"
    for stem in sorted(found.cut_short):
        what = "has no sidecar: its export was interrupted, so it does not count as a case"
        yield Problem(folder / f"{stem}.npz", what, f"{again}, or delete it")
    for stem in sorted(found.without_npz):
        yield Problem(
            folder / f"{stem}.npz", f"is missing, but {stem}.json is there", f"{again}, or delete that"
        )
    for name in found.unsafe:
        yield Problem(folder / name, "has a name that is not safe on every system", "Rename the file")
    for name in found.temporary:
        yield Problem(
            folder / name, "was left by an export that was killed", "Delete it when no export is running"
        )


def _manifest(folder: Path, found: Scan) -> tuple[Manifest | None, list[Problem]]:
    path = folder / MANIFEST_NAME
    if not path.exists() and not found.ours:
        return None, []
    try:
        return read_manifest(path), []
    except BrokenCase as error:
        return None, [error.problem]


def _manifest_problems(folder: Path, manifest: Manifest, found: Scan) -> Iterator[Problem]:
    path = folder / MANIFEST_NAME
    rebuild = "The next export brings the manifest up to date"
    for stem in manifest.refused:
        what = f"lists {stem!r}, which is not a plain file name"
        yield Problem(path, what, "It was ignored. Do not trust this file; delete it to have it rebuilt")
    stems = Counter(entry.stem for entry in manifest.cases)
    for stem in sorted(stem for stem, count in stems.items() if count > 1):
        yield Problem(path, f"lists {stem!r} more than once", rebuild)
    for stem in sorted(set(stems) - found.ours):
        if stem not in found.without_npz and stem not in found.cut_short:
            what = f"is missing, but {MANIFEST_NAME} lists it"
            yield Problem(folder / f"{stem}.npz", what, "Put it back from a backup, or export again")
    for stem in sorted(found.ours - set(stems)):
        yield Problem(path, f"does not list {stem!r}", rebuild)


def _case_problems(path: Path, listed: str | None, classes: Mapping[int, str]) -> Iterator[Problem]:
    ours = is_ours(path)
    try:
        headers = read_headers(path)
        case = read_case(path, predictions=False)
        stored = read_sidecar(path).content_sha256 if ours else None
    except BrokenCase as error:
        yield error.problem
        return
    for name in sorted(set(headers) - set(ARRAYS if ours else PUBLISHED_ARRAYS)):
        yield Problem(path, f"holds an array {name!r} that this format does not know", "It is ignored")
    if not case.objects:
        yield Problem(path, "has no objects", "Training cannot use it; label it or remove it")
    if not ours:
        return
    for class_id, name in {o.class_id: o.class_name for o in case.objects}.items():
        if classes.get(class_id, name) != name:
            what = f"calls class {class_id} {name!r}, the dataset {classes[class_id]!r}"
            yield Problem(sidecar_path(path), what, "Export the case again with the dataset's class")
    if listed not in (None, stored):
        what = f"has another content hash than {MANIFEST_NAME} lists"
        yield Problem(path, what, "Put the case back from a backup, or delete the manifest")
