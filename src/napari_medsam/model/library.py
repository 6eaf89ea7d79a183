"""The user's own decoders: a folder of decoder files, listed, renamed, deleted, exported and imported. No torch."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from napari_medsam.errors import CheckpointError
from napari_medsam.files import replacing
from napari_medsam.folders import decoders_folder
from napari_medsam.model.catalogue import MODELS
from napari_medsam.model.decoder_file import SUFFIX, DecoderInfo, read_info, rewrite_info

_NAME = re.compile(r"[\w][\w .+()-]{0,79}")


@dataclass(frozen=True)
class OwnDecoder:
    """A decoder file and what it says of itself."""

    path: Path
    info: DecoderInfo

    @property
    def name(self) -> str:
        """The name it is chosen by: its file's, without the suffix."""
        return self.path.stem


def own_decoders() -> list[OwnDecoder]:
    """The user's decoders, newest first; files that cannot be read are left out."""
    found = []
    for path in sorted(decoders_folder().glob(f"*{SUFFIX}")):
        try:
            found.append(OwnDecoder(path, read_info(path)))
        except CheckpointError:
            continue
    return sorted(found, key=lambda decoder: decoder.info.created, reverse=True)


def decoder_path(name: str) -> Path:
    """Where a decoder of this name lies or would lie. Raises CheckpointError for a name that is no file name."""
    if _NAME.fullmatch(name) is None or name.endswith((".", " ")):
        raise CheckpointError(
            f"{name!r} cannot be the name of a decoder. Use letters, digits, spaces and . + - _ ( ), at most 80."
        )
    return decoders_folder() / f"{name}{SUFFIX}"


def find_own(name: str) -> OwnDecoder:
    """The decoder of a name. Raises CheckpointError when there is none."""
    path = decoder_path(name)
    if not path.is_file():
        known = ", ".join(decoder.name for decoder in own_decoders())
        advice = f"Choose one of: {known}." if known else "Train or import one first."
        raise CheckpointError(f"There is no decoder {name!r} in {decoders_folder()}. {advice}")
    return OwnDecoder(path, read_info(path))


def free_name(wanted: str, taken: Iterable[str] = ()) -> str:
    """`wanted` made a valid name, with a number behind it when it is taken already."""
    clean = re.sub(r"[^\w .+()-]", "-", wanted)
    clean = re.sub(r"^\W+", "", clean)[:70].rstrip(" .-") or "decoder"
    number, name = 1, clean
    while decoder_path(name).exists() or name in taken or _is_reserved(name):
        number += 1
        name = f"{clean} {number}"
    return name


def rename_decoder(name: str, new: str) -> OwnDecoder:
    """Give a decoder another name. Raises CheckpointError: no such decoder, no valid name, or one that is taken."""
    old, target = find_own(name), decoder_path(new)
    if target.exists() or _is_reserved(new):
        raise CheckpointError(f"There is a model or decoder {new!r} already. Choose another name.")
    info = rewrite_info(old.path, name=new)
    old.path.rename(target)
    return OwnDecoder(target, info)


def note_decoder(name: str, notes: str) -> OwnDecoder:
    """Keep some words of the user's with a decoder. Raises CheckpointError."""
    decoder = find_own(name)
    return OwnDecoder(decoder.path, rewrite_info(decoder.path, notes=notes))


def delete_decoder(name: str) -> None:
    """Remove a decoder for good. Raises CheckpointError."""
    decoder = find_own(name)
    try:
        decoder.path.unlink()
    except OSError as error:
        raise CheckpointError(
            f"{decoder.path} cannot be deleted ({error.strerror}). Close what uses it."
        ) from error


def export_decoder(name: str, target: Path) -> Path:
    """Copy a decoder to a file or folder of the user's and return the file. Raises CheckpointError."""
    decoder = find_own(name)
    return _copied(decoder.path, target / decoder.path.name if target.is_dir() else target)


def import_decoder(source: Path) -> OwnDecoder:
    """Copy a decoder file into the user's decoders, under a free name. Raises CheckpointError when it is none."""
    info = read_info(source)
    name = free_name(info.name)
    path = _copied(source, decoder_path(name))
    return OwnDecoder(path, rewrite_info(path, name=name))


def _is_reserved(name: str) -> bool:
    """Whether a model of the catalogue has this name: a decoder called so could not be chosen."""
    return name in MODELS


def _copied(source: Path, target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as content, replacing(target) as copy:
            shutil.copyfileobj(content, copy)
    except OSError as error:
        raise CheckpointError(
            f"{source} cannot be copied to {target} ({error.strerror or error}). Choose another folder."
        ) from error
    return target
