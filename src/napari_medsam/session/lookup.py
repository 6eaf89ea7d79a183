"""The best embedding at hand for a box, found without encoding: its own field, else a grid field, else the plane."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.bounded import BoundedMemory
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, Window, resolve_contrast
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.fields import (
    DEFAULT_POLICY,
    FieldPolicy,
    field_of,
    grid_field,
    grid_side,
    shown_whole,
)

if TYPE_CHECKING:
    from napari_medsam.model.api import Model

Seen = dict[Field, Embedding | None]

REUSE_ABOVE = 2**21
"""Planes of more pixels are not looked through anew for every prompt; see ``FieldLookup.forget``."""

REMEMBERED = 256

CLOSE = 0.7
"""A view that shows less than this share of the plane's longer side is closer than the whole plane."""


class FieldLookup:
    """Looks embeddings up in a cache. Thread-safe.

    On a small plane the pixels are read anew each time, so pixels changed in place are always seen. On a large one
    the contrast and the whole plane's embedding are remembered until `forget`.
    """

    def __init__(self, cache: EmbeddingCache, policy: FieldPolicy = DEFAULT_POLICY) -> None:
        self.cache = cache
        self.policy = policy
        self._lock = threading.Lock()
        self._forgotten = 0
        self._windows = BoundedMemory[tuple[int, Contrast], tuple[Plane, Window]](REMEMBERED)
        # Raw pixels and all that shapes them -> key.
        self._small = BoundedMemory[bytes, tuple[str, Window]](REMEMBERED)
        self._whole: tuple[Plane, Contrast, str, Embedding] | None = None

    def best(
        self, model: Model | None, plane: Plane, contrast: Contrast, box: Box, choice: str, seen: Seen
    ) -> Embedding | None:
        """The best embedding of the plane that is in the cache for a box; None if there is none, or no model yet.

        `seen` keeps what was looked up, found or not, for boxes that are answered together.
        """
        return self.first(model, plane, contrast, self.fields_for(box, plane, choice), seen)

    def first(
        self, model: Model | None, plane: Plane, contrast: Contrast, fields: Iterable[Field], seen: Seen
    ) -> Embedding | None:
        """The first embedding of some fields that is in the cache; None and `seen` as in `best`."""
        if model is None:
            return None
        for field in fields:
            if field not in seen:
                seen[field] = self._look_up(model, plane, contrast, field)
            found = seen[field]
            if found is not None:
                return found
        return None

    def fields_for(self, box: Box, plane: Plane, choice: str) -> Iterator[Field]:
        """The fields that could answer a box, the best first."""
        wanted = field_of(choice, box, plane.shape, self.policy)
        yield wanted
        whole = whole_field(plane.shape)
        if choice == "auto" and wanted != whole:
            for room in (self.policy.grid_room, 2 * self.policy.grid_room):
                field = grid_field(
                    box, plane.shape, FieldPolicy(grid_room=room, smallest=self.policy.smallest)
                )
                if field != whole:
                    yield field
        if wanted != whole and shown_whole(plane):
            yield whole

    def fields_around(
        self, clicks: Box, plane: Plane, choice: str, known: Field | None, view: Box | None
    ) -> list[Field]:
        """The fields to look at first for an object that has clicks only, the best first; at least one.

        clicks: holds their pixels. known: the field of the object's mask so far, if it has one. view: what is on
        screen of the plane. A user who is closer than the whole plane means something smaller: then a grid field
        goes before it. choice "whole" leaves all others out.
        """
        whole = whole_field(plane.shape)
        fields = [] if choice == "whole" or known is None else [known]
        if choice == "auto" and view is not None:
            room = _widened(clicks, grid_side(view, self.policy) / self.policy.grid_room)
            near = grid_field(room, plane.shape, self.policy)
            close = view.longest < CLOSE * max(plane.shape) or not shown_whole(plane)
            fields += [near, whole] if close else [whole, near]
        if shown_whole(plane) or not fields:
            fields.append(whole)
        return [field for field in dict.fromkeys(fields) if field.box.contains(clicks)] or [whole]

    def request(
        self, plane: Plane, contrast: Contrast, field: Field, priority: int, generation: int
    ) -> FieldRequest:
        """A request for the encoder; on a large plane it carries the plane's contrast, resolved once. A centred
        field has a contrast of its own (``field_window``)."""
        window = None if field.kind == "centred" else self._window(plane, contrast)
        return FieldRequest(plane, contrast, field, priority, generation, window)

    def forget(self) -> None:
        """Pixels of large planes may have changed."""
        with self._lock:
            self._forgotten += 1
            self._windows.clear()
            self._whole = None

    def _look_up(self, model: Model, plane: Plane, contrast: Contrast, field: Field) -> Embedding | None:
        encoder = f"{model.encoder_hash} {model.precision}"
        whole_plane = field == whole_field(plane.shape)
        if (
            whole_plane and not is_large(plane) and len(plane.levels) == 1
        ):  # a coarser level is not in the pixels
            return self._look_up_small(model, plane, contrast, field, encoder)
        keep = whole_plane and is_large(plane)
        with self._lock:
            whole, forgotten = self._whole, self._forgotten
        if keep and whole is not None and whole[:3] == (plane, contrast, encoder):
            return whole[3]
        found = embed(model, self.cache, self.request(plane, contrast, field, 0, 0), lookup_only=True)
        if keep and found is not None:
            with self._lock:
                if forgotten == self._forgotten:
                    self._whole = (plane, contrast, encoder, found)
        return found

    def _look_up_small(
        self, model: Model, plane: Plane, contrast: Contrast, field: Field, encoder: str
    ) -> Embedding | None:
        """Look a small plane up by its raw pixels: hashing them is far quicker than preparing them again."""
        raw = np.array(plane.read(0, 0, *plane.shape))  # a copy: what is hashed is what is looked up
        meaning = (raw.shape, raw.dtype, plane.rgb, contrast, encoder, model.name, model.frame)
        pixels = hashlib.sha256(repr(meaning).encode())
        pixels.update(np.ascontiguousarray(raw).view(np.uint8).data)
        known = self._small.get(pixels.digest())
        features = self.cache.get(known[0]) if known is not None else None
        if known is not None and features is not None:
            return Embedding(known[0], features, field, known[1], plane, True)
        channel_axis = 2 if raw.ndim == 3 and not plane.rgb else None
        taken = Plane.from_array(raw, rgb=plane.rgb, channel_axis=channel_axis, name=plane.name)
        found = embed(model, self.cache, self.request(taken, contrast, field, 0, 0), lookup_only=True)
        if found is None:
            return None
        self._small.put(pixels.digest(), (found.key, found.window))
        return replace(found, plane=plane)

    def _window(self, plane: Plane, contrast: Contrast) -> Window | None:
        if not is_large(plane):
            return None
        key = (id(plane), contrast)
        with self._lock:
            known, forgotten = self._windows.get(key), self._forgotten
        if known is not None and known[0] is plane:
            return known[1]
        window = resolve_contrast(plane, contrast)
        with self._lock:
            if forgotten == self._forgotten:
                self._windows.put(key, (plane, window))
        return window


def _widened(box: Box, least: float) -> Box:
    """A box around the same middle whose longer side is at least `least`."""
    return Box(*box.centre, *box.centre).grown(max(least, box.longest) / 2)


def is_large(plane: Plane) -> bool:
    """Whether reading the plane for every prompt would be felt."""
    return plane.shape[0] * plane.shape[1] > REUSE_ABOVE
