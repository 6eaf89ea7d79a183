"""The manifest of a dataset folder, `dataset.json`: its name, classes and cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from napari_medsam.curation.formats.sidecar import Sidecar
from napari_medsam.curation.json_file import read_record
from napari_medsam.curation.problem import BrokenCase
from napari_medsam.files import replacing
from napari_medsam.records import to_json

MANIFEST_NAME = "dataset.json"
MANIFEST_FORMAT = "napari-medsam dataset"
MANIFEST_VERSION = 1
# Okabe and Ito's colours, which people with any colour vision can tell apart
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")


@dataclass(frozen=True)
class ClassEntry:
    """One class: its id, its name and its colour as #rrggbb."""

    id: int
    name: str
    colour: str


@dataclass(frozen=True)
class CaseEntry:
    """One case in the manifest.

    objects: how many; corrected: how many of them a person corrected; classes: class id -> objects;
    image_sha256: of the pixels alone, so that two versions of one image's labels can be told.
    """

    stem: str
    content_sha256: str
    image_sha256: str
    objects: int
    corrected: int
    classes: Mapping[int, int]
    group: str | None
    created: str


@dataclass(frozen=True)
class Manifest:
    """What `dataset.json` says. stems are safe file names; refused: stems that were not."""

    name: str
    classes: tuple[ClassEntry, ...] = ()
    cases: tuple[CaseEntry, ...] = ()
    refused: tuple[str, ...] = ()

    def with_cases(self, entries: Iterable[CaseEntry]) -> Manifest:
        """Return a manifest with `entries` added, each in place of any of its stem; sorted by stem."""
        cases = {e.stem: e for e in (*self.cases, *entries)}
        return replace(self, cases=tuple(cases[stem] for stem in sorted(cases)))

    def with_classes(self, classes: Iterable[ClassEntry], where: Path) -> Manifest:
        """Return a manifest with these classes added; a known id keeps its name and takes the new colour.

        Raises BrokenCase when a known id comes with another name: the dataset's masks would change meaning.
        """
        known = {c.id: c for c in self.classes}
        for entry in classes:
            old = known.get(entry.id, entry)
            if old.name != entry.name:
                what = f"class {entry.id} is {old.name!r} in the dataset, not {entry.name!r}"
                raise BrokenCase(
                    where, what, "Give the class the dataset's name, or another id, or use a new folder"
                )
            known[entry.id] = entry
        return replace(self, classes=tuple(known[i] for i in sorted(known)))


def safe_stem(stem: object) -> bool:
    """Whether `stem` names a file inside the folder and nothing else, on any system."""
    if not isinstance(stem, str) or not 0 < len(stem) <= 200:
        return False
    return not stem.startswith(".") and re.search(r'[/\\:\x00-\x1f<>"|?*]', stem) is None


def class_entry(class_id: int, name: str) -> ClassEntry:
    """Return a class with the colour that its id has by default."""
    return ClassEntry(class_id, name, _COLOURS[(class_id - 1) % len(_COLOURS)])


def entry_of(stem: str, sidecar: Sidecar) -> CaseEntry:
    """Return the manifest's line for a case from its sidecar."""
    return CaseEntry(
        stem=stem,
        content_sha256=sidecar.content_sha256,
        image_sha256=sidecar.image_sha256,
        objects=len(sidecar.objects),
        corrected=sum(item.corrected for item in sidecar.objects),
        classes=dict(Counter(item.class_id for item in sidecar.objects)),
        group=sidecar.group,
        created=sidecar.created,
    )


def classes_of(sidecar: Sidecar) -> list[ClassEntry]:
    """Return the classes of a case's objects, in default colours."""
    names = {item.class_id: item.class_name for item in sidecar.objects}
    return [class_entry(i, names[i]) for i in sorted(names)]


@dataclass(frozen=True)
class _StoredEntry(CaseEntry):
    stem: object  # type: ignore[assignment]  # whatever the file says, until it is known to be safe


@dataclass(frozen=True)
class _StoredManifest:
    name: str
    classes: tuple[ClassEntry, ...]
    cases: tuple[_StoredEntry, ...]


def read_manifest(path: Path) -> Manifest:
    """Return the manifest at `path`. Raises BrokenCase: missing, foreign, newer, or of wrong types."""
    stored = read_record(path, _StoredManifest, MANIFEST_FORMAT, MANIFEST_VERSION)
    safe = tuple(CaseEntry(**vars(entry)) for entry in stored.cases if safe_stem(entry.stem))
    refused = tuple(str(entry.stem)[:200] for entry in stored.cases if not safe_stem(entry.stem))
    return Manifest(stored.name, stored.classes, safe, refused)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest whole or not at all. Raises OSError."""
    write_entries(path, manifest.name, manifest.cases, lambda: manifest.classes)


def write_entries(
    path: Path, name: str, entries: Iterable[CaseEntry], classes: Callable[[], Iterable[ClassEntry]]
) -> None:
    """Write a manifest of entries that are taken one at a time, a line each: any number of them.

    classes: asked for after the last entry, so that it may go by them. Raises OSError.
    """
    head = {"format": MANIFEST_FORMAT, "version": MANIFEST_VERSION, "name": name}
    with replacing(path) as stream:
        stream.write(_text(head)[:-1] + b',\n"cases": [')
        for number, entry in enumerate(entries):
            stream.write((b",\n" if number else b"\n") + _text(entry))
        stream.write(b'],\n"classes": ' + _text(list(classes())) + b"}\n")


def _text(data: object) -> bytes:
    return to_json(data).encode("ascii")
