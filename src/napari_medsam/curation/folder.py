"""What lies in a dataset folder, and the manifest it ought to have."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from napari_medsam.curation.formats.medsam import MARKER
from napari_medsam.curation.formats.sidecar import read_sidecar
from napari_medsam.curation.manifest import (
    MANIFEST_NAME,
    Manifest,
    classes_of,
    entry_of,
    read_manifest,
    safe_stem,
)
from napari_medsam.curation.npz import read_headers
from napari_medsam.curation.problem import BrokenCase, NewerFormat
from napari_medsam.files import TEMPORARY_SUFFIX


@dataclass(frozen=True)
class Scan:
    """Stems by what lies beside them, from one listing of the folder.

    ours: .npz and sidecar. published: a .npz that no export of ours began (one that cannot be read counts
    here, so that reading it says why). cut_short: our .npz without its sidecar. without_npz: a sidecar alone.
    unsafe: file names that cannot be stems. temporary: hidden files that a killed export left.
    """

    ours: frozenset[str]
    published: frozenset[str]
    cut_short: frozenset[str]
    without_npz: frozenset[str]
    unsafe: tuple[str, ...]
    temporary: tuple[str, ...]


def scan(folder: Path) -> Scan:
    """List `folder` (not its subfolders); only a .npz without a sidecar is opened, and no array is read.

    Raises BrokenCase when the folder cannot be listed.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise BrokenCase(folder, f"cannot be listed ({error.strerror})", "Check the permissions") from error
    npz = {name.removesuffix(".npz") for name in names if name.endswith(".npz") and not name.startswith(".")}
    json = {name.removesuffix(".json") for name in names if name.endswith(".json")} - {"dataset"}
    unsafe = {stem for stem in npz if not safe_stem(stem)}
    alone = npz - json - unsafe
    cut_short = {stem for stem in alone if _is_cut_short(folder / f"{stem}.npz")}
    return Scan(
        ours=frozenset((npz & json) - unsafe),
        published=frozenset(alone - cut_short),
        cut_short=frozenset(cut_short),
        without_npz=frozenset(stem for stem in json - npz if safe_stem(stem)),
        unsafe=tuple(sorted(f"{stem}.npz" for stem in unsafe)),
        temporary=tuple(n for n in names if n.startswith(".") and n.endswith(TEMPORARY_SUFFIX)),
    )


def _is_cut_short(path: Path) -> bool:
    try:
        return MARKER in read_headers(path)
    except BrokenCase:
        return False


def current_manifest(folder: Path) -> Manifest:
    """Return the manifest as it ought to be: what `dataset.json` says, brought up to date with the sidecars.

    A missing or broken manifest is rebuilt; entries without files go, sidecars without an entry come in. Of
    two names for one class the first stays (`validate` reports the other). Sidecars that cannot be read are
    left out. Raises NewerFormat when the manifest is of a later version.
    """
    found = scan(folder)
    manifest = _stored(folder)
    kept = tuple(entry for entry in manifest.cases if entry.stem in found.ours)
    manifest = Manifest(manifest.name, manifest.classes, kept)
    fresh = []
    for stem in sorted(found.ours - {entry.stem for entry in kept}):
        with contextlib.suppress(BrokenCase):
            sidecar = read_sidecar(folder / f"{stem}.npz")
            fresh.append(entry_of(stem, sidecar))
            known = {c.id for c in manifest.classes}
            new = [c for c in classes_of(sidecar) if c.id not in known]
            manifest = manifest.with_classes(new, folder / MANIFEST_NAME)
    return manifest.with_cases(fresh)


def _stored(folder: Path) -> Manifest:
    try:
        return read_manifest(folder / MANIFEST_NAME)
    except NewerFormat:
        raise
    except BrokenCase:
        return Manifest(name=folder.resolve().name or "dataset")
