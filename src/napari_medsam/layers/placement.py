"""Where shapes and points of one layer lie in the planes of an image layer, and back, by both layers' transforms.

napari puts the centre of pixel i at data coordinate i, so pixel i covers [i - 0.5, i + 0.5); plane pixels here
cover [i, i + 1). The half pixel is added and taken away in this file only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import PlaneKey
from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box
from napari_medsam.layers.geometry import WorkAxes, displayed_axes, layer_shape, plane_index

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

Places = npt.NDArray[np.float64]
"""Places in a layer's data coordinates, one a row: (k, D)."""

ROUND = 6  # decimals of a pixel
STEP = 4096.0  # long, so that a large translation costs the other columns no digits


class Placement:
    """Maps one layer to the planes of an image layer and back.

    The layers' transforms are read once, so that one serves many shapes; it holds until one of them, or the view,
    changes.
    """

    def __init__(self, drawn: Layer, viewer: ViewerModel, image: Image, axes: WorkAxes) -> None:
        self._viewer, self._image, self._axes = viewer, image, axes
        self._drawn_ndim = drawn.ndim
        self._from_drawn, self._from_image = _to_world(drawn), _to_world(image)
        self._shape = layer_shape(image)

    def box_of(self, vertices: npt.ArrayLike) -> tuple[PlaneKey, Box]:
        """Map a drawn shape's vertices (k, D) to the plane it lies in and its box there, not yet clipped.

        A shape that is turned against the image gives the box around it; one with fewer axes than the image lies in
        the plane that the sliders show. Raises PromptError for a shape that does not lie in one plane of the image,
        ImageError as ``displayed_axes`` does.
        """
        displayed = self._displayed
        points = self._to_image(vertices)
        if not np.isfinite(points).all():
            raise PromptError(f"{self._image.name}: a corner of the shape is not finite. Draw it again.")
        fixed = [n for n in range(len(self._shape)) if n not in displayed and n != self._axes.channel]
        if fixed and np.ptp(points[:, fixed], axis=0).max() > 0.5:
            raise PromptError(
                f"{self._image.name}: the shape crosses several planes. Draw it in the view that is open."
            )
        return self._key(points.mean(axis=0)), Box.from_points(points[:, list(displayed)] + 0.5)

    def point_of(self, place: npt.ArrayLike) -> tuple[PlaneKey, tuple[float, float]]:
        """Map a place (D,) to the plane it lies in and (row, col) there, whole numbers at pixel centres.

        Raises as ``box_of`` does, not for a place beside the plane.
        """
        row, col = self._displayed
        [point] = self._to_image(np.asarray(place, dtype=float)[np.newaxis])
        if not np.isfinite(point).all():
            raise PromptError(f"{self._image.name}: a click is not finite. Click again.")
        return self._key(point), (float(point[row]), float(point[col]))

    def outline_of(self, vertices: npt.ArrayLike, key: PlaneKey) -> tuple[tuple[float, float], ...]:
        """Map a shape's vertices (k, D) to (row, col) in a plane, whole numbers at pixel centres."""
        points = self._to_image(vertices)[:, list(key.displayed)]
        return tuple((float(row), float(col)) for row, col in points)

    # back ---------------------------------------------------------------------------------------------------

    def places_of(self, points: Sequence[tuple[float, float]], key: PlaneKey) -> Places:
        """Map (row, col) in a plane to places (k, D) in the layer: ``point_of`` backwards."""
        places = np.tile([float(position or 0) for position in key.index], (len(points), 1))
        places[:, list(key.displayed)] = points
        world = _fit(_apply(self._from_image, places), self._drawn_ndim)
        return _apply(_inverse(self._from_drawn), world)

    def vertices_of(self, box: Box, key: PlaneKey) -> Places:
        """Map a box of a plane to the corners (4, D) of a rectangle in the layer: ``box_of`` backwards."""
        r0, c0, r1, c1 = (edge - 0.5 for edge in (box.r0, box.c0, box.r1, box.c1))
        return self.places_of([(r0, c0), (r0, c1), (r1, c1), (r1, c0)], key)

    # ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _displayed(self) -> tuple[int, int]:
        return displayed_axes(self._viewer, self._image, self._axes)

    @cached_property
    def _into_image(self) -> npt.NDArray[np.float64]:
        return _inverse(self._from_image)

    def _to_image(self, vertices: npt.ArrayLike) -> Places:
        world, ndim = _apply(self._from_drawn, np.asarray(vertices, dtype=float)), self._image.ndim
        missing = ndim - world.shape[1]
        if missing > 0:  # they lie where the sliders stand
            shown = np.asarray(self._viewer.dims.point, dtype=float)[-ndim:][:missing]
            world = np.hstack([np.tile(shown, (len(world), 1)), world])
        # An edge on the border of two pixels stays there, whatever the transforms' rounding says.
        places: Places = np.round(_apply(self._into_image, _fit(world, ndim)), ROUND)
        return places

    def _key(self, point: npt.NDArray[np.float64]) -> PlaneKey:
        index = plane_index(point, self._displayed, self._axes, self._shape, self._image.name)
        return PlaneKey(index, self._displayed)


def _to_world(layer: Layer) -> npt.NDArray[np.float64]:
    """The matrix (D + 1, D + 1) from a layer's data to the world; napari itself maps one place at a time."""
    matrix = np.eye(layer.ndim + 1)
    matrix[:-1, -1] = origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    for axis, step in enumerate(np.eye(layer.ndim) * STEP):
        matrix[:-1, axis] = (np.asarray(layer.data_to_world(step)) - origin) / STEP
    return matrix


def _inverse(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _apply(matrix: npt.NDArray[np.float64], places: Places) -> Places:
    moved: Places = places @ matrix[:-1, :-1].T + matrix[:-1, -1]
    return moved


def _fit(world: Places, ndim: int) -> Places:
    """World coordinates on the last axes, as many as a layer has; it lies at 0 on those that it lacks."""
    missing = ndim - world.shape[1]
    return np.pad(world, ((0, 0), (missing, 0))) if missing > 0 else world[:, -ndim:]
