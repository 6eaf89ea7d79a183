"""Which objects still wait for a mask: only the newest question about an object counts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from threading import Lock

from napari_medsam.document.objects import Document
from napari_medsam.image.plane import Plane
from napari_medsam.segment.engine import Trail
from napari_medsam.segment.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Ask:
    """What was said about one object, and the masks before its clicks, when its mask was asked for."""

    document: Document
    object_id: int
    prompt: Prompt
    trail: Trail
    plane: Plane
    token: int


class Awaited:
    """The questions that are open, by document and object. Thread-safe."""

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._newest: dict[tuple[int, int], int] = {}  # (document, object) -> token of what is still awaited
        self._waiting: list[Ask] = []
        self._lock = Lock()

    def add(self, document: Document, object_id: int, prompt: Prompt, plane: Plane) -> None:
        """Ask about an object; an earlier question about it no longer counts."""
        token = next(self._tokens)
        self._newest[id(document), object_id] = token
        trail = document[object_id].trail
        with self._lock:
            self._waiting.append(Ask(document, object_id, prompt, trail, plane, token))

    def take(self, plane: Plane) -> list[Ask]:
        """Hand out, once, the questions about a plane's objects that still count."""
        with self._lock:
            mine = [ask for ask in self._waiting if ask.plane is plane]
            self._waiting = [ask for ask in self._waiting if ask.plane is not plane]
        return [ask for ask in mine if self.wants(ask)]

    def wants(self, ask: Ask) -> bool:
        """Whether a question still counts."""
        return self._newest.get((id(ask.document), ask.object_id)) == ask.token

    def withdraw(self, document: Document, object_id: int) -> None:
        self._newest.pop((id(document), object_id), None)

    def objects(self, document: Document) -> list[int]:
        """The objects of a document whose question is open."""
        return [object_id for owner, object_id in tuple(self._newest) if owner == id(document)]

    def clear(self) -> None:
        self._newest.clear()
        with self._lock:
            self._waiting.clear()
