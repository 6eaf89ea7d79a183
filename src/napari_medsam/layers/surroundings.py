"""Which objects a mask may meet, found by where they lie: asking all of them for each of many masks takes long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import Document, Part, PlaneKey
from napari_medsam.geometry import Bounds


class Surroundings:
    """The parts in a document by their planes and places, as they are when it is made."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._planes: dict[PlaneKey, list[Part]] = {}
        for part in document.parts():
            if part.patch is not None:
                self._planes.setdefault(part.plane, []).append(part)
        self._bounds: dict[PlaneKey, npt.NDArray[np.intp]] = {}

    def of(self, plane: PlaneKey, bounds: Bounds, region: npt.NDArray[np.integer]) -> list[Part]:
        """The parts on a plane whose prediction reaches into a region, or whose label stands in it (h, w)."""
        parts = self._planes.get(plane, [])
        if plane not in self._bounds:
            self._bounds[plane] = np.array([_bounds_of(part) for part in parts], dtype=int).reshape(-1, 4)
        r0, c0, r1, c1 = self._bounds[plane].T
        meets = (r0 < bounds[2]) & (bounds[0] < r1) & (c0 < bounds[3]) & (bounds[1] < c1)
        found = {parts[number].object_id: parts[number] for number in np.flatnonzero(meets).tolist()}
        for label in np.unique(region).tolist() if region.any() else ():
            part = self._document.get_part(label, plane)
            if part is not None:
                found.setdefault(label, part)
        return list(found.values())


def _bounds_of(part: Part) -> Bounds:
    assert part.patch is not None
    return part.patch.bounds
