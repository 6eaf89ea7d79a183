"""Which objects still wait for a mask: only the newest request for an object counts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from threading import Lock

from napari_medsam.document.objects import Document
from napari_medsam.image.plane import Plane
from napari_medsam.segment.engine import ClickHistory
from napari_medsam.segment.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Request:
    """One object's prompt, and the masks before its clicks, when its mask was asked for."""

    document: Document
    object_id: int
    prompt: Prompt
    masks_before: ClickHistory
    plane: Plane
    token: int


class Requests:
    """The requests that are open, by document and object. Thread-safe."""

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._newest: dict[tuple[int, int], int] = {}  # (document, object) -> token of what is still awaited
        self._waiting: list[Request] = []
        self._lock = Lock()

    def add(self, document: Document, object_id: int, prompt: Prompt, plane: Plane) -> None:
        """Ask for an object's mask; an earlier request for it no longer counts."""
        token = next(self._tokens)
        self._newest[id(document), object_id] = token
        masks_before = document[object_id].masks_before
        with self._lock:
            self._waiting.append(Request(document, object_id, prompt, masks_before, plane, token))

    def take(self, plane: Plane) -> list[Request]:
        """Hand out, once, the requests for a plane's objects that still count."""
        with self._lock:
            mine = [request for request in self._waiting if request.plane is plane]
            self._waiting = [request for request in self._waiting if request.plane is not plane]
        return [request for request in mine if self.wants(request)]

    def wants(self, request: Request) -> bool:
        """Whether a request still counts."""
        return self._newest.get((id(request.document), request.object_id)) == request.token

    def withdraw(self, document: Document, object_id: int) -> None:
        self._newest.pop((id(document), object_id), None)

    def objects(self, document: Document) -> list[int]:
        """The objects of a document whose request is open."""
        return [object_id for owner, object_id in tuple(self._newest) if owner == id(document)]

    def clear(self) -> None:
        self._newest.clear()
        with self._lock:
            self._waiting.clear()
