"""A file or pair that is not taken, and why: listed in the report, never fatal, never silent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_medsam.errors import MedSAMError


@dataclass(frozen=True)
class Left:
    """What was left out. name: relative to its folder; kind: a short word for counting; reason: a sentence.

    of: "images" or "masks", the folder that it lies in.
    """

    name: str
    kind: str
    reason: str
    of: str = "images"


class LeftOut(Exception):
    """Raised where a pair turns out to be no case."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind, self.reason = kind, reason
        super().__init__(f"{kind}: {reason}")


def readable(error: Exception, *folders: Path) -> str:
    """A library's message in one line, without the folders' own path; our own messages as they are."""
    text = " ".join((str(error) or type(error).__name__).split())
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return (
        text
        if isinstance(error, MedSAMError)
        else f"It cannot be read ({type(error).__name__}: {text[:300]})."
    )
