"""Fetch the freely licensed pictures from which the shipped interactive decoder is trained.

    python training/interactive/fetch.py OUT [--mirror DIR] [--only NAME ...]

`sources.json` beside this file names each source: git repository, commit, licence, the sentence that
grants it, and what is taken. OUT/NAME gets images/STEM.png (8-bit grey or RGB), masks/STEM.png (uint16,
instances numbered from 1) where the source has masks, and at last source.json, the source's entry: a
folder without it is not complete. A commit gives the same pictures each time.

Needs git, and `pip install nibabel pydicom` beside the package. --mirror DIR reads DIR/owner+name (a git
repository, or a folder that holds one named repo) and not the network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from napari_medsam.files import replacing
from napari_medsam.records import from_json, plain
from napari_medsam_training.interactive.source_pictures import Picture, SourceError, Take, pictures


@dataclass(frozen=True)
class Repository:
    """The files of one commit, read from git's object store: no checkout is needed, nor all files present."""

    git_dir: Path
    commit: str

    def listing(self) -> list[str]:
        """Return all paths of the commit. Raises SourceError."""
        return self._git("ls-tree", "-r", "-z", "--name-only", self.commit).decode().split("\0")[:-1]

    def content(self, path: str) -> bytes:
        """Return a file's bytes. Raises SourceError."""
        return self._git("cat-file", "blob", f"{self.commit}:{path}")

    def _git(self, *words: str) -> bytes:
        return run_git("--git-dir", str(self.git_dir), *words)


def run_git(*words: str) -> bytes:
    """Return what git prints. Raises SourceError with git's own words."""
    try:
        ended = subprocess.run(
            ["git", *words], capture_output=True, check=False, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        )
    except FileNotFoundError as error:
        raise SourceError("git is not on the PATH; install git") from error
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip()
        raise SourceError(f"git says: {said}; check url, commit and paths in sources.json, or the mirror")
    return ended.stdout


def cloned(url: str, commit: str, git_dir: Path) -> Repository:
    """Fetch one commit, without its history, into a new bare repository. Raises SourceError."""
    run_git("init", "--quiet", "--bare", str(git_dir))
    run_git("--git-dir", str(git_dir), "fetch", "--quiet", "--depth", "1", url, commit)
    return Repository(git_dir, commit)


def mirrored(url: str, commit: str, mirror: Path) -> Repository:
    """Return the repository that the mirror holds for `url`. Raises SourceError."""
    folder = mirror / "+".join(url.removesuffix(".git").split("/")[-2:])
    for git_dir in (folder, folder / ".git", folder / "repo", folder / "repo" / ".git"):
        if (git_dir / "HEAD").is_file():
            return Repository(git_dir, commit)
    raise SourceError(f"{folder} holds no git repository; clone {url} there or leave --mirror out")


@dataclass(frozen=True)
class Entry:
    """One source of sources.json: a commit of a git repository, what is taken from it, its licence and its sentence."""

    url: str
    commit: str
    take: tuple[Take, ...]
    licence: str = ""
    modality: str = ""
    sentence: str = ""
    sentence_in: str = ""


def fetch(entry: Entry, folder: Path, mirror: Path | None) -> tuple[int, int]:
    """Write one source's pictures under `folder`; return how many images and masks. Raises SourceError, OSError."""
    with ExitStack() as stack:
        if mirror is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "source.git"
            repository = cloned(entry.url, entry.commit, place)
        else:
            repository = mirrored(entry.url, entry.commit, mirror)
        listing, stems, masks = repository.listing(), set[str](), 0
        for take in entry.take:
            for picture in pictures(take, listing, repository.content):
                if picture.stem in stems:
                    raise SourceError(
                        f"two pictures are named {picture.stem}; take one of them in sources.json"
                    )
                write(picture, folder)
                stems.add(picture.stem)
                masks += picture.mask is not None
    with replacing(folder / "source.json") as stream:
        stream.write(json.dumps(plain(entry), indent=1, ensure_ascii=False).encode())
    return len(stems), masks


def write(picture: Picture, folder: Path) -> None:
    """Write the mask before its image, so that an image never stands there as if it had none. Raises OSError."""
    for kind, plane in (("masks", picture.mask), ("images", picture.pixels)):
        if plane is not None:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            with replacing(folder / kind / f"{picture.stem}.png") as stream:
                Image.fromarray(plane).save(stream, "PNG")


def main(arguments: list[str] | None = None, recipes: Path = Path("training/interactive")) -> int:
    """Fetch the sources asked for; return 1 where one of them failed, after the others are done."""
    parser = argparse.ArgumentParser(
        description="Fetch the pictures that the interactive decoder is trained on."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the sources' pictures")
    parser.add_argument("--mirror", type=Path, metavar="DIR", help="read DIR/owner+name and not the network")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these sources only")
    parser.add_argument("--sources", type=Path, default=recipes / "sources.json", metavar="FILE")
    options = parser.parse_args(arguments)
    sources = from_json(dict[str, Entry], options.sources.read_bytes())
    if unknown := sorted(set(options.only or ()) - set(sources)):
        parser.error(f"{options.sources} has no source {', '.join(unknown)}; it has {', '.join(sources)}")
    failed = 0
    for name in options.only or sources:
        folder = options.out / name
        if (folder / "source.json").exists():
            print(f"{name}: is there already; remove {folder} to fetch it again")
            continue
        try:
            images, masks = fetch(sources[name], folder, options.mirror)
            print(f"{name}: {images} images, {masks} masks", flush=True)
        except (SourceError, OSError) as error:
            failed = 1
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
