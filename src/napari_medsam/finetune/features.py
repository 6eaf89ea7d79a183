"""The embeddings that samples need: made where they are missing, then read from memory or disk as training asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.errors import Cancelled
from napari_medsam.finetune.data import Sample
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field

if TYPE_CHECKING:
    from napari_medsam.model.medsam import MedSAM

Place = tuple[int, Field]

MEMORY_BYTES = 2**30


class FeatureStore:
    """Embeddings of samples by their plane and field. Thread-safe once filled.

    cache: None keeps everything in memory. memory_bytes: how much is kept there beside the cache on disk.
    """

    def __init__(self, model: MedSAM, cache: EmbeddingCache | None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._model = model
        self._cache = cache
        self._limit = memory_bytes
        self._used = 0
        self._kept: OrderedDict[Place, npt.NDArray[np.float16]] = OrderedDict()
        self._keys: dict[Place, str] = {}
        self._lock = Lock()

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
        with self._lock:
            found = self._kept.get(place)
            if found is not None:
                self._kept.move_to_end(place)
                return found
        key = self._keys.get(place)
        read = self._cache.get(key) if self._cache is not None and key is not None else None
        if read is None:
            return self._embed(place, sample).features
        self._keep(place, read)
        return read

    def _embed(self, place: Place, sample: Sample) -> Embedding:
        embedding = embed(self._model, self._cache, FieldRequest(sample.image, Contrast(), sample.field))
        self._keys[place] = embedding.key
        self._keep(place, embedding.features)
        return embedding

    def _keep(self, place: Place, features: npt.NDArray[np.float16]) -> None:
        with self._lock:
            if place not in self._kept:
                self._used += features.nbytes
            self._kept[place] = features
            while self._cache is not None and self._used > self._limit and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._used -= dropped.nbytes
