"""Which parts of objects still wait for a mask: only the newest request for a part counts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from threading import Lock

from napari_medsam.document.objects import Document, PartKey
from napari_medsam.image.plane import Plane
from napari_medsam.segment.engine import ClickHistory
from napari_medsam.segment.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Request:
    """The prompt of a part, and the masks before its clicks, when its mask was asked for."""

    document: Document
    part: PartKey
    prompt: Prompt
    masks_before: ClickHistory
    plane: Plane
    token: int


class Requests:
    """The requests that are open, by document and part. Thread-safe."""

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._newest: dict[
            tuple[int, PartKey], int
        ] = {}  # (document, part) -> token of what is still awaited
        self._waiting: list[Request] = []
        self._lock = Lock()

    def add(self, document: Document, part: PartKey, prompt: Prompt, plane: Plane) -> None:
        """Ask for a part's mask; an earlier request for it no longer counts."""
        token = next(self._tokens)
        self._newest[id(document), part] = token
        masks_before = document.part(*part).masks_before
        with self._lock:
            self._waiting.append(Request(document, part, prompt, masks_before, plane, token))

    def take(self, plane: Plane) -> list[Request]:
        """Hand out, once, the requests for a plane's parts that still count."""
        with self._lock:
            mine = [request for request in self._waiting if request.plane is plane]
            self._waiting = [request for request in self._waiting if request.plane is not plane]
        return [request for request in mine if self.wants(request)]

    def wants(self, request: Request) -> bool:
        """Whether a request still counts."""
        return self._newest.get((id(request.document), request.part)) == request.token

    def withdraw(self, document: Document, part: PartKey) -> None:
        self._newest.pop((id(document), part), None)

    def parts(self, document: Document) -> list[PartKey]:
        """The parts in a document whose request is open."""
        return [part for owner, part in tuple(self._newest) if owner == id(document)]

    def clear(self) -> None:
        self._newest.clear()
        with self._lock:
            self._waiting.clear()
