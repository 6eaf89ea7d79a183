"""Embeddings kept in memory: the last used ones, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from napari_medsam.embedding.entry import Features


class MemoryLayer:
    """Read-only embeddings by key, at most `max_bytes` of them, least recently used dropped. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[str, Features] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> Features | None:
        """The embedding under `key`, now the most recently used; None when it is not held."""
        with self._lock:
            features = self._held.get(key)
            if features is not None:
                self._held.move_to_end(key)
            return features

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._held

    def put(self, key: str, features: Features) -> None:
        """Hold `features`, dropping the least recently used; one larger than the whole layer is not held."""
        with self._lock:
            self._bytes -= _size(self._held.pop(key, None))
            self._held[key] = features
            self._bytes += _size(features)
            while self._bytes > self._max_bytes:
                self._bytes -= _size(self._held.popitem(last=False)[1])

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0


def _size(features: Features | None) -> int:
    return 0 if features is None else features.nbytes
