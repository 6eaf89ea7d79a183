"""The layers that are made for an image: boxes to draw on, labels for the masks, in memory or on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medsam.layers.geometry import WorkAxes, layer_shape, shared_shape, transforms_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Points, Shapes

    from napari_medsam.document.objects import PlaneKey
    from napari_medsam.segment.prediction import Prediction

METADATA_KEY = "napari_medsam"
EDGE_WIDTH = 2.0
CLICK_SIZE_PX = (14, 18)
IN_MEMORY = 512 * 2**20
"""Labels of more bytes than this lie on disk, where they are a stack."""

TILE = 512
MASK_TYPE = np.dtype(np.int32)


def add_prompts(viewer: ViewerModel, image: Image, axes: WorkAxes) -> Shapes:
    """Add an empty Shapes layer for boxes, on the axes that prompts share with the image."""
    return viewer.add_shapes(
        ndim=image.ndim - axes.dropped,
        name=f"{image.name} boxes",
        face_color="transparent",
        edge_width=line_width(image),
        metadata={METADATA_KEY: {"role": "prompts"}},
        **transforms_of(image, axes),
    )


def add_clicks(viewer: ViewerModel, image: Image, axes: WorkAxes) -> Points:
    """Add an empty Points layer for clicks, on the axes that prompts share with the image; on screen they keep their
    size, whatever the zoom. The layer that was selected stays so."""
    active = viewer.layers.selection.active
    layer = viewer.add_points(
        ndim=image.ndim - axes.dropped,
        name=f"{image.name} clicks",
        size=max(3.0, max(layer_shape(image)) / 40),
        border_width=0,
        canvas_size_limits=CLICK_SIZE_PX,
        metadata={METADATA_KEY: {"role": "clicks"}},
        **transforms_of(image, axes),
    )
    viewer.layers.selection.active = active
    return layer


def add_masks(viewer: ViewerModel, image: Image, axes: WorkAxes) -> Labels:
    """Add an empty Labels layer above the image; the layer that was selected stays so.

    Its metadata names the folder, should the labels lie on disk: ``metadata[METADATA_KEY]["folder"]``.
    """
    active = viewer.layers.selection.active
    about: dict[str, Any] = {"role": "masks"}
    shape = shared_shape(image, axes)
    labels: Any
    if is_too_large(shape):
        about["folder"] = str(new_folder())
        labels = labels_on_disk(shape, Path(about["folder"]) / "masks.zarr")
    else:
        labels = np.zeros(shape, dtype=MASK_TYPE)
    layer = viewer.add_labels(
        labels,
        name=f"{image.name} masks",
        opacity=0.5,
        metadata={METADATA_KEY: about},
        **transforms_of(image, axes),
    )
    viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(image) + 1)
    viewer.layers.selection.active = active
    return layer


def add_preview(viewer: ViewerModel, image: Image, axes: WorkAxes) -> Labels:
    """Add a Labels layer for one small mask of a plane, above all others; the layer that was selected stays so."""
    active = viewer.layers.selection.active
    layer = viewer.add_labels(
        np.zeros((1,) * (image.ndim - axes.dropped), dtype=np.uint8),
        name=f"{image.name} preview",
        opacity=0.4,
        metadata={METADATA_KEY: {"role": "preview"}},
        **transforms_of(image, axes),
    )
    viewer.layers.selection.active = active
    return layer


def show_preview(layer: Labels, found: Prediction, key: PlaneKey, image: Image, axes: WorkAxes) -> None:
    """Let a layer of `add_preview` show a mask of a plane: its data become the mask alone, moved to where it lies."""
    mask = found.mask if found.mask.size else np.zeros((1, 1), dtype=bool)
    place = np.array([float(position or 0) for position in key.index])
    place[list(key.displayed)] = found.row, found.col
    shape = np.ones(image.ndim, dtype=int)
    shape[list(key.displayed)] = mask.shape
    layer.translate = transforms_of(image, axes)["translate"]
    world = np.subtract(layer.data_to_world(place[axes.kept]), layer.data_to_world(np.zeros(layer.ndim)))
    # napari moves a layer before it applies the affine.
    layer.translate = layer.translate + np.linalg.solve(
        np.asarray(layer.affine.affine_matrix)[:-1, :-1], world
    )
    layer.data = mask.astype(np.uint8).reshape(shape[axes.kept])
    layer.visible = True


def is_too_large(shape: tuple[int, ...]) -> bool:
    """Whether labels of a shape belong on disk.

    A single plane never does: napari takes what it shows into memory whole, so that a file would only add a copy.
    """
    return int(np.prod(shape)) * MASK_TYPE.itemsize > IN_MEMORY and any(n > 1 for n in shape[:-2])


def labels_on_disk(shape: tuple[int, ...], path: Path) -> Any:
    """Make an empty zarr array of labels, in tiles of 512 x 512 of its last two axes; only painted tiles take room."""
    import zarr

    chunks = (*(1 for _ in shape[:-2]), *(min(TILE, length) for length in shape[-2:]))
    return zarr.create_array(path, shape=shape, chunks=chunks, dtype=MASK_TYPE)


def new_folder() -> Path:
    """A folder of its own among the temporary ones. It is not removed: the masks in it may be all there are."""
    return Path(tempfile.mkdtemp(prefix="napari-medsam-masks-"))


def line_width(image: Image) -> float:
    """An edge width, in data pixels, that stays visible when the whole image is on screen."""
    return max(1.0, max(layer_shape(image)) / 256 * EDGE_WIDTH / 2)
