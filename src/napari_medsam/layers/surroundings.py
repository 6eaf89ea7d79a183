"""Which objects a mask may meet, found by where they lie: asking all of them for each of many masks takes long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import Document, Part, PlaneKey
from napari_medsam.geometry import Box


class Surroundings:
    """The parts in a document by their planes and the places of their predictions, as these are when it is made."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._rows: dict[PlaneKey, list[tuple[float, ...]]] = {}
        self._tables: dict[PlaneKey, npt.NDArray[np.intp]] = {}
        for part in document.parts():
            if part.patch is not None:
                self._rows.setdefault(part.plane, []).append((part.object_id, *part.patch.box))

    def of(self, plane: PlaneKey, box: Box, region: npt.NDArray[np.integer]) -> list[Part]:
        """The parts on a plane whose prediction reaches into a region, or whose label stands in it (h, w)."""
        if plane not in self._tables:
            self._tables[plane] = np.array(self._rows.get(plane, []), dtype=int).reshape(-1, 5)
        ids, r0, c0, r1, c1 = self._tables[plane].T
        meets = (r0 < box.r1) & (box.r0 < r1) & (c0 < box.c1) & (box.c0 < c1)
        near = ids[meets].tolist()
        if region.any():
            near = [*near, *np.unique(region).tolist()]
        found = (self._document.get_part(number, plane) for number in dict.fromkeys(near))
        return [part for part in found if part is not None]
