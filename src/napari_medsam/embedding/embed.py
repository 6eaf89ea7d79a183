"""From a field of a plane to its embedding: read, prepare, look it up, else encode and keep it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from napari_medsam.embedding.cache import EmbeddingCache, embedding_key
from napari_medsam.embedding.entry import Features
from napari_medsam.errors import ImageError, MedSAMError, ModelError
from napari_medsam.image.contrast import Contrast, Window
from napari_medsam.image.field import Field, field_window, read_field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.model.api import EncoderModel


@dataclass(frozen=True, eq=False)
class FieldRequest:
    """Ask for one field of a plane.

    `field` None means the whole plane. A lower `priority` goes first. `generation` is the asker's own number:
    it comes back with the embedding, so that a late result of an older question can be told and dropped.
    `window` spares resolving the contrast again on a large plane; None resolves it for the field.
    """

    plane: Plane
    contrast: Contrast
    field: Field | None = None
    priority: int = 0
    generation: int = 0
    window: Window | None = None


@dataclass(frozen=True, eq=False)
class Embedding:
    """The encoder's output for one field.

    `features` is (256, 64, 64) float16, read-only; `key` names it; `window` is the contrast as resolved for
    the field; `hit` tells that it came out of the cache; `plane` and `generation` are the request's.
    """

    key: str
    features: Features
    field: Field
    window: Window
    plane: Plane
    hit: bool
    generation: int = 0


@overload
def embed(
    model: EncoderModel,
    cache: EmbeddingCache | None,
    request: FieldRequest,
    *,
    lookup_only: Literal[False] = False,
) -> Embedding: ...
@overload
def embed(
    model: EncoderModel, cache: EmbeddingCache | None, request: FieldRequest, *, lookup_only: bool
) -> Embedding | None: ...
def embed(
    model: EncoderModel, cache: EmbeddingCache | None, request: FieldRequest, *, lookup_only: bool = False
) -> Embedding | None:
    """The embedding of the requested field: from the cache, else encoded now and kept there (None: not kept).

    The key is computed from the pixels each time, so pixels that changed in place are seen. `lookup_only`
    never encodes: a miss gives None. May run in several threads at once. Raises ImageError when the plane
    cannot be read and ModelError when the encoder fails, both with the plane's name.
    """
    plane = request.plane
    field = whole_field(plane.shape) if request.field is None else request.field
    with _failures_as(ImageError, f"Image {plane.name!r} cannot be read at {_place(field)}"):
        window = request.window or field_window(plane, request.contrast, field)
        pixels = read_field(plane, field, window, model.frame)
    with _failures_as(ModelError, f"Model {model.name!r} failed on image {plane.name!r} at {_place(field)}"):
        prepared = model.prepare(pixels)
        key = embedding_key(prepared, model.encoder_hash, model.precision)
        features = None if cache is None else cache.get(key)
        hit = features is not None
        if features is None:
            if lookup_only:
                return None
            key, features = _encode(model, cache, prepared, plane, field)
    return Embedding(key, features, field, window, plane, hit, request.generation)


def _encode(
    model: EncoderModel, cache: EmbeddingCache | None, prepared: npt.NDArray[Any], plane: Plane, field: Field
) -> tuple[str, Features]:
    encoded = model.encode(prepared)
    features = np.array(encoded.features, dtype=np.float16)
    if not np.isfinite(features).all():
        raise ModelError(
            f"Model {model.name!r} gave values that are not finite in {encoded.precision} for image "
            f"{plane.name!r} at {_place(field)}. Choose the device 'cpu' for it."
        )
    features.flags.writeable = False
    # The encoder may have fallen back, out of memory for one; the entry belongs to what it really computed.
    key = embedding_key(prepared, model.encoder_hash, encoded.precision)
    if cache is not None:
        cache.put(key, features, _describe(model, encoded.precision, plane, field))
    return key, features


def _describe(
    model: EncoderModel, precision: str, plane: Plane, field: Field
) -> dict[str, str | int | float]:
    """What a person who opens the entry with another tool wants to know; nothing here is read back."""
    return {
        "model": model.name,
        "encoder_hash": model.encoder_hash,
        "precision": precision,
        "layer": plane.name,
        "index": ",".join(":" if i is None else str(i) for i in plane.index),
        "field": _place(field),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _place(field: Field) -> str:
    """A field in NumPy's own notation, half-open rows and columns in plane pixels."""
    return f"[{field.row}:{field.row + field.height}, {field.col}:{field.col + field.width}] ({field.kind})"


@contextmanager
def _failures_as(kind: type[MedSAMError], what: str) -> Iterator[None]:
    """Pass our own errors on as they are and name the culprit of all others, RuntimeError included."""
    try:
        yield
    except MedSAMError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise kind(f"{what}: {reason}") from error
