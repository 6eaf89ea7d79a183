"""The embeddings that samples need: made where they are missing, then read from memory or disk as training asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.bounded import BoundedMemory
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.errors import Cancelled
from napari_medsam.finetune.samples import Sample
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field

if TYPE_CHECKING:
    from napari_medsam.model.local import MedSAM

Place = tuple[int, Field]

MEMORY_BYTES = 2**30


class FeatureStore:
    """Embeddings of samples by their plane and field. Thread-safe once filled.

    cache: None keeps everything in memory. memory_bytes: how much is kept there beside the cache on disk.
    """

    def __init__(self, model: MedSAM, cache: EmbeddingCache | None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._model = model
        self._cache = cache
        most = sys.maxsize if cache is None else memory_bytes
        self._memory = BoundedMemory[str, npt.NDArray[np.float16]](most, lambda features: features.nbytes)
        self._keys: dict[Place, str] = {}

    def fill(
        self, samples: Sequence[Sample], stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, int, bool]]:
        """Embed what the samples need, each field once; yields (done, of, whether it was in the cache already).

        Raises Cancelled once stopping(), and what `embed` raises. What was embedded by then stays in the cache.
        """
        places = {(id(sample.image), sample.field): sample for sample in samples}
        for done, (place, sample) in enumerate(places.items(), start=1):
            if stopping():
                raise Cancelled("Training was stopped while it embedded.")
            yield done, len(places), self._embed(place, sample).hit

    def __call__(self, sample: Sample) -> npt.NDArray[np.float16]:
        """The embedding of a sample, (C, h, w) float16; embedded anew if it was pruned from the cache meanwhile."""
        place = (id(sample.image), sample.field)
        key = self._keys.get(place)
        found = None if key is None else self._memory.get(key)
        if found is None and key is not None and self._cache is not None:
            found = self._cache.get(key)
            if found is not None:
                self._memory.put(key, found)
        return self._embed(place, sample).features if found is None else found

    def _embed(self, place: Place, sample: Sample) -> Embedding:
        embedding = embed(self._model, self._cache, FieldRequest(sample.image, Contrast(), sample.field))
        self._keys[place] = embedding.key
        self._memory.put(embedding.key, embedding.features)
        return embedding
