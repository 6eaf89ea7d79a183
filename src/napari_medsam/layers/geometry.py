"""An image layer and its planes: which one is on screen, which axes prompts and labels share with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medsam.document.objects import PlaneKey
from napari_medsam.errors import ImageError
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


@dataclass(frozen=True)
class WorkAxes:
    """Which axes of an image layer its prompts and labels share.

    ``channel`` is the layer axis that holds channels, or None. Prompts and labels belong to all channels: a leading
    channel axis is dropped from them; any other is one element long that reaches over all channels, so that the
    sliders still line up.
    """

    ndim: int
    channel: int | None = None

    @property
    def dropped(self) -> int:
        return 1 if self.channel == 0 and self.ndim > 2 else 0

    @property
    def kept(self) -> slice:
        return slice(self.dropped, None)


def layer_shape(layer: Image) -> tuple[int, ...]:
    """The finest level's shape without the RGB axis."""
    data: Any = layer.data[0] if layer.multiscale else layer.data
    return tuple(int(n) for n in data.shape[: layer.ndim])


def displayed_axes(viewer: ViewerModel, layer: Image, axes: WorkAxes) -> tuple[int, int]:
    """Tell which two axes of ``layer`` the viewer shows, in the layer's own order.

    A view that is transposed shows the same plane: its pixels, objects and embedding are the ones at hand.
    Raises ImageError, naming the layer and the next step, when the view is 3D or shows an axis that the layer
    lacks, or its channel axis.
    """
    if viewer.dims.ndisplay != 2:
        raise ImageError(f"{layer.name}: prompts need the 2D view. Press Ctrl+Y to leave the 3D view.")
    offset = viewer.dims.ndim - layer.ndim
    row, col = sorted(axis - offset for axis in viewer.dims.displayed)
    if row < 0 or col < 0:
        raise ImageError(
            f"{layer.name}: the view shows an axis this layer does not have. Roll the axes back."
        )
    if axes.channel in (row, col):
        raise ImageError(
            f"{layer.name}: the view shows the channel axis. Roll the axes, or choose another one."
        )
    return row, col


def displayed_plane(viewer: ViewerModel, layer: Image, axes: WorkAxes) -> PlaneKey:
    """Tell which plane of ``layer`` the viewer shows. Raises ImageError as ``displayed_axes`` does, and when the
    sliders stand outside the layer."""
    displayed = displayed_axes(viewer, layer, axes)
    point = layer.world_to_data(viewer.dims.point)
    return PlaneKey(plane_index(point, displayed, axes, layer_shape(layer), layer.name), displayed)


def neighbours(key: PlaneKey, layer: Image, axes: WorkAxes, reach: int) -> list[PlaneKey]:
    """The planes that a step or more of any slider leads to, the nearest first: one step on, one back, two on ..."""
    found = []
    for step in (sign * distance for distance in range(1, reach + 1) for sign in (1, -1)):
        for axis, length in enumerate(layer_shape(layer)):
            place = key.index[axis]
            if place is None or axis == axes.channel or not 0 <= place + step < length:
                continue
            index = (*key.index[:axis], place + step, *key.index[axis + 1 :])
            found.append(PlaneKey(index, key.displayed))
    return found


def view_box(layer: Image, key: PlaneKey) -> Box:
    """The part of a plane that is on screen, in whole pixels, at least one.

    napari keeps it at the level of the pyramid that is shown.
    """
    shape = layer_shape(layer)
    if layer.corner_pixels.shape[1] != layer.ndim:  # new data with other axes, not drawn yet
        return Box.of_plane((shape[key.displayed[0]], shape[key.displayed[1]]))
    bounds = []
    for axis in key.displayed:
        factor = float(layer.downsample_factors[layer.data_level][axis]) if layer.multiscale else 1.0
        first, last = (round(float(corner) * factor) for corner in layer.corner_pixels[:, axis])
        first = min(max(first, 0), shape[axis] - 1)
        bounds.append((first, min(max(last, first + 1), shape[axis])))
    (r0, r1), (c0, c1) = bounds
    return Box(r0, c0, r1, c1)


def plane_of(layer: Image, key: PlaneKey, axes: WorkAxes) -> Plane:
    """Describe one plane of an image layer without reading a pixel."""
    levels = list(layer.data) if layer.multiscale else layer.data
    index = (*key.index, None) if layer.rgb else key.index
    return Plane.from_array(
        levels,
        rgb=bool(layer.rgb),
        displayed=key.displayed,
        index=index,
        channel_axis=None if layer.rgb else axes.channel,
        spacing=(abs(float(layer.scale[key.displayed[0]])), abs(float(layer.scale[key.displayed[1]]))),
        name=layer.name,
    )


def on_screen(vertices: npt.ArrayLike, shapes: Layer, viewer: ViewerModel) -> float:
    """Tell how long the longer side of a drawn shape is in pixels of the canvas."""
    world = np.array([shapes.data_to_world(vertex) for vertex in np.asarray(vertices, dtype=float)])
    shown = [axis - viewer.dims.ndim + world.shape[1] for axis in viewer.dims.displayed]
    return float(np.ptp(world[:, shown], axis=0).max() * viewer.scene.camera.zoom)


def plane_index(
    point: npt.NDArray[np.floating[Any]],
    displayed: tuple[int, int],
    axes: WorkAxes,
    shape: tuple[int, ...],
    name: str,
) -> tuple[int | None, ...]:
    """The position of a point (D,) of a layer on the axes that are not displayed.

    Raises ImageError for one outside the layer.
    """
    index: list[int | None] = []
    for axis, (position, length) in enumerate(zip(point, shape, strict=True)):
        if axis in displayed or axis == axes.channel:
            index.append(None)
            continue
        nearest = round(float(position))
        if not 0 <= nearest < length:
            raise ImageError(
                f"{name}: position {nearest} on axis {axis} is outside the layer (0 to {length - 1}). "
                "Move the slider onto the image."
            )
        index.append(nearest)
    return tuple(index)


def shared_shape(layer: Image, axes: WorkAxes) -> tuple[int, ...]:
    """The shape of labels for ``layer``, on the axes they share."""
    shape = [1 if axis == axes.channel else length for axis, length in enumerate(layer_shape(layer))]
    return tuple(shape[axes.kept])


def transforms_of(layer: Image, axes: WorkAxes) -> dict[str, Any]:
    """The keyword arguments that give another layer the transforms of ``layer`` on the axes they share."""
    kept = axes.kept
    scale, translate = layer.scale.copy(), layer.translate.copy()
    if axes.channel is not None:
        # Its one element reaches over all channels: as wide as they are, its centre in their middle.
        channels = layer_shape(layer)[axes.channel]
        translate[axes.channel] += scale[axes.channel] * (channels - 1) / 2
        scale[axes.channel] *= channels
    return {
        "scale": scale[kept],
        "translate": translate[kept],
        "rotate": layer.rotate[kept, kept],
        "shear": _shear(layer, axes),
        "affine": _affine(layer, axes),
        "units": layer.units[kept],
        "axis_labels": layer.axis_labels[kept],
    }


def _affine(layer: Image, axes: WorkAxes) -> npt.NDArray[np.float64]:
    kept = np.r_[axes.dropped : layer.ndim + 1]
    matrix: npt.NDArray[np.float64] = np.asarray(layer.affine.affine_matrix)[np.ix_(kept, kept)]
    return matrix


def _shear(layer: Image, axes: WorkAxes) -> npt.NDArray[np.float64]:
    # napari stores shear as the strict upper triangle of a unit matrix, row by row.
    full = np.eye(layer.ndim)
    full[np.triu_indices(layer.ndim, 1)] = np.asarray(layer.shear, dtype=float)
    part = full[axes.kept, axes.kept]
    return part[np.triu_indices(len(part), 1)]
