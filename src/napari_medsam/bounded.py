"""What was used last, kept up to a bound: embeddings, image sides, looked up pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedMemory(Generic[Key, Value]):
    """Values by key, whose sizes add up to `most` at most; the least recently used go first. Thread-safe.

    size: of a value, in the unit of `most`; without it every value counts as one.
    """

    def __init__(self, most: int, size: Callable[[Value], int] = lambda _: 1) -> None:
        self._most = most
        self._size = size
        self._total = 0
        self._held: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Value | None:
        """The value under `key`, now the most recently used; None when it is not held."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key]

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key: Key, value: Value) -> None:
        """Hold a value, dropping the least recently used; one larger than the whole memory is not held."""
        with self._lock:
            if key in self._held:
                self._total -= self._size(self._held.pop(key))
            self._held[key] = value
            self._total += self._size(value)
            while self._total > self._most:
                self._total -= self._size(self._held.popitem(last=False)[1])

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._held.clear()
            self._total = 0
