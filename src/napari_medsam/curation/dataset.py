"""A folder of cases with a manifest: many processes may append, reading is lazy, checks are on demand."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napari_medsam.curation.case import Case
from napari_medsam.curation.case_files import prepared, read_case, stored_hash, write_prepared
from napari_medsam.curation.folder import current_manifest, scan
from napari_medsam.curation.formats.sidecar import read_sidecar, sidecar_path
from napari_medsam.curation.manifest import (
    MANIFEST_NAME,
    CaseEntry,
    ClassEntry,
    Manifest,
    class_entry,
    entry_of,
    safe_stem,
    write_manifest,
)
from napari_medsam.curation.problem import BrokenCase, Problem
from napari_medsam.curation.validate import validate_folder

LOCK_NAME = ".dataset.lock"
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Summary:
    """Counts over a dataset. classes: class name -> objects; groups: distinct ones, none not counted."""

    cases: int
    objects: int
    corrected: int
    classes: Mapping[str, int]
    groups: int


class CuratedDataset:
    """The cases in one folder.

    path: a folder with cases, ours or published MedSAM .npz files (cases of unknown provenance), or both.
    create: make the folder and its manifest when they are not there.

    The cases on disk are the truth and the manifest an index of them: a manifest that is missing, broken or
    behind is rebuilt from the sidecars in memory, and on disk at the next append. Reading writes nothing.

    Raises BrokenCase (a CaseError): no such folder, or nothing to read in it and not `create`.
    """

    def __init__(self, path: str | os.PathLike[str], create: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise BrokenCase(self.path, "is not a folder", "Choose a folder for the dataset")
        if create:
            self._create()
        if not self.path.is_dir():
            raise BrokenCase(self.path, "does not exist", "Check the path, or export a case there first")
        self.refresh()
        if not create and not self._stems and not self._manifest_path.exists():
            raise BrokenCase(
                self.path, "holds no cases", "Choose a folder of cases, or export one there first"
            )

    @property
    def _manifest_path(self) -> Path:
        return self.path / MANIFEST_NAME

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BrokenCase(
                self.path, f"cannot be made ({error.strerror})", "Choose another folder"
            ) from error
        with self._locked():
            if not self._manifest_path.exists():
                self._save(current_manifest(self.path))

    def refresh(self) -> None:
        """Look at the folder again: another process may have added cases."""
        self._manifest = current_manifest(self.path)
        found = scan(self.path)
        self._stems = tuple(sorted(found.ours | found.published))

    @property
    def manifest(self) -> Manifest:
        """Name, classes and entries of the cases that have a sidecar, as of the last refresh."""
        return self._manifest

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        return self._manifest.classes

    @property
    def cases(self) -> tuple[str, ...]:
        """The stems of all cases, sorted; as of the last refresh or append."""
        return self._stems

    def __len__(self) -> int:
        return len(self._stems)

    def __iter__(self) -> Iterator[Case]:
        """Read one case after the other. Raises BrokenCase at a case that cannot be read."""
        return (self.read(stem) for stem in self._stems)

    def __getitem__(self, key: int | str) -> Case:
        """Return the case at a position or of a stem. Raises IndexError, KeyError, BrokenCase."""
        if isinstance(key, str) and key not in self._stems:
            raise KeyError(key)
        return self.read(key if isinstance(key, str) else self._stems[key])

    def read(self, stem: str, *, predictions: bool = True) -> Case:
        """Return one case, as `read_case` does."""
        return read_case(self.file(stem), predictions=predictions)

    def file(self, stem: str) -> Path:
        """Return the .npz of a stem. Raises BrokenCase when the stem is not a plain file name."""
        if not safe_stem(stem):
            raise BrokenCase(self.path, f"has no case {stem!r}", "Use one of the dataset's case names")
        return self.path / f"{stem}.npz"

    def append(self, case: Case, *, classes: Iterable[ClassEntry] = (), replace: bool = False) -> Path:
        """Add `case` and return its .npz; the same content again gives the file that is there already.

        classes: colours for the case's classes; those not given keep theirs or get a default one.
        replace: drop older labels of the same plane: earlier cases of the very same pixels, plane index and
        file name (layer name where there is no file).
        Safe against other processes appending at the same time.

        Raises BrokenCase: see `write_case`; a class id that the dataset knows by another name; the folder
        stays locked by another process.
        """
        return self.extend([case], classes=classes, replace=replace)[0]

    def extend(
        self, cases: Iterable[Case], *, classes: Iterable[ClassEntry] = (), replace: bool = False
    ) -> list[Path]:
        """Add several cases, as `append` does, and write the manifest once. No cases give an empty list.

        When one case is refused those before it stay, whole and listed.
        """
        colours = {entry.id: entry for entry in classes}
        paths: list[Path] = []
        with self._locked():
            index = _Index(current_manifest(self.path))
            try:
                for case in cases:
                    kept = {path.stem for path in paths}
                    paths.append(self._add(index, case, colours))
                    if replace:
                        self._drop_older(index, paths[-1].stem, kept)
            finally:
                self._save(index.manifest())
        self.refresh()
        return paths

    def remove(self, stem: str) -> None:
        """Delete a case: sidecar, .npz and entry. Raises BrokenCase when a file cannot be deleted."""
        with self._locked():
            self._delete(stem)
            self._save(current_manifest(self.path))
        self.refresh()

    def validate(self) -> list[Problem]:
        """Return everything that is wrong in the folder; reads each case once, changes nothing."""
        return validate_folder(self.path)

    def summary(self) -> Summary:
        """Count cases, objects, classes and groups; published files without a sidecar are read for it."""
        names = {c.id: c.name for c in self.classes}
        entries = {entry.stem: entry for entry in self._manifest.cases}
        counts: Counter[str] = Counter()
        for stem in self._stems:
            if stem in entries:
                counts.update({names.get(i, str(i)): n for i, n in entries[stem].classes.items()})
            else:
                counts.update(o.class_name for o in self.read(stem, predictions=False).objects)
        corrected = sum(entry.corrected for entry in entries.values())
        groups = len({entry.group for entry in entries.values()} - {None})
        return Summary(len(self), counts.total(), corrected, dict(counts), groups)

    def _add(self, index: _Index, case: Case, colours: Mapping[int, ClassEntry]) -> Path:
        ready = prepared(case, self.path)
        names = {o.class_id: o.class_name for o in case.objects}
        index.add_classes(names, colours, self._manifest_path)
        path = self._existing(index, ready.digest) or write_prepared(self.path, ready)
        index.add(entry_of(path.stem, read_sidecar(path)))
        return path

    def _drop_older(self, index: _Index, stem: str, kept: Collection[str]) -> None:
        """Equal pixels alone are not enough: frames of a movie, or copies of a file, can be equal too."""
        source = read_sidecar(self.file(stem)).source
        for older in index.same_image(stem):
            if older not in kept and source.same_place(read_sidecar(self.file(older)).source):
                self._delete(older)
                index.drop(older)

    def _existing(self, index: _Index, digest: str) -> Path | None:
        """The same content under another name, that is from a renamed layer or a moved file."""
        stem = index.of_content(digest)
        return self.file(stem) if stem is not None and stored_hash(self.file(stem)) == digest else None

    def _delete(self, stem: str) -> None:
        """Sidecar first: a kill in between leaves a .npz that counts as cut short, not as a case."""
        path = self.file(stem)
        try:
            sidecar_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise BrokenCase(path, f"cannot be deleted ({error.strerror})", "Close what uses it") from error

    def _save(self, manifest: Manifest) -> None:
        try:
            write_manifest(self._manifest_path, manifest)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise BrokenCase(self._manifest_path, what, "Free some space or fix the permissions") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK_NAME, timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except (Timeout, OSError) as error:
            what = f"is being written by another process, or cannot be written ({error})"
            raise BrokenCase(
                self.path, what, "Wait for the other export, or check the permissions"
            ) from error
        try:
            yield
        finally:
            lock.release()


class _Index:
    """A manifest while cases are added to it: found by content or by image without a search for each."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = dataclasses.replace(manifest, cases=())
        self._entries: dict[str, CaseEntry] = {}
        self._contents: dict[str, str] = {}
        self._images: dict[str, set[str]] = {}
        for entry in manifest.cases:
            self.add(entry)

    def add(self, entry: CaseEntry) -> None:
        self._entries[entry.stem] = entry
        self._contents[entry.content_sha256] = entry.stem
        self._images.setdefault(entry.image_sha256, set()).add(entry.stem)

    def drop(self, stem: str) -> None:
        entry = self._entries.pop(stem)
        self._contents.pop(entry.content_sha256, None)
        self._images[entry.image_sha256].discard(stem)

    def of_content(self, digest: str) -> str | None:
        return self._contents.get(digest)

    def same_image(self, stem: str) -> tuple[str, ...]:
        """Other cases of the same pixels."""
        return tuple(sorted(self._images[self._entries[stem].image_sha256] - {stem}))

    def add_classes(self, names: Mapping[int, str], given: Mapping[int, ClassEntry], where: Path) -> None:
        """Colours: the one given now, else the dataset's, else the id's default."""
        known = {c.id: c for c in self._manifest.classes}
        for i, name in sorted(names.items()):
            entry = given.get(i) or known.get(i) or class_entry(i, name)
            entry = dataclasses.replace(entry, name=name)
            self._manifest = self._manifest.with_classes([entry], where)

    def manifest(self) -> Manifest:
        return self._manifest.with_cases(self._entries.values())
