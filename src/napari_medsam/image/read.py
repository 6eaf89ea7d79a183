"""Files to planes, for the command line: TIFF, PNG, JPEG, BMP, .npy and (OME-)Zarr, read lazily."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from napari_medsam.errors import ImageError
from napari_medsam.image.plane import LazyArray, Plane

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".npy", ".zarr")
"""File names read_image takes; a .zarr is a folder."""

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
_LOAD_BYTES = 256 * 2**20  # a compressed TIFF under this is loaded at once, a larger one tile by tile
_MOST_CHANNELS = 16  # an unnamed last axis up to this, behind two much longer ones, holds channels


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image file, opened but not necessarily read.

    levels: arrays with the same axes, finest first. axes: one letter for each axis: Y and X span the plane,
    S is RGB(A) samples, C channels, any other letter (Z, T, Q) makes a stack of planes.
    spacing: size of a pixel along (row, col) where OME metadata tell it, else (1, 1). depth: of a step along Z,
    likewise. unit: of both, "pixel" where the metadata tell none.
    """

    levels: tuple[LazyArray, ...]
    axes: str
    spacing: tuple[float, float]
    name: str
    path: Path
    depth: float = 1.0
    unit: str = "pixel"

    @property
    def rgb(self) -> bool:
        """Whether the last axis holds RGB or RGBA."""
        return self.axes.endswith("S") and self.levels[0].shape[-1] in (3, 4)

    @property
    def channel_axis(self) -> int | None:
        """The axis of the channels; None for grey and RGB."""
        if self.rgb:
            return None
        return next((self.axes.index(letter) for letter in "CS" if letter in self.axes), None)

    @property
    def stack_axes(self) -> tuple[int, ...]:
        """The axes that number the planes; () for a single plane."""
        flat = {self.channel_axis, self.axes.index("Y"), self.axes.index("X")}
        if self.rgb:
            flat.add(len(self.axes) - 1)
        return tuple(axis for axis in range(len(self.axes)) if axis not in flat)

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """The length of each stack axis; () for a single plane."""
        return tuple(int(self.levels[0].shape[axis]) for axis in self.stack_axes)

    def plane(self, position: Sequence[int] | None = None) -> Plane:
        """The plane at a position of the stack; None where there is but one.

        Raises ImageError for a stack without a position, and for a position outside it.
        """
        shape = self.stack_shape
        extent = "x".join(map(str, shape)) or "1"
        if position is None and np.prod(shape) > 1:
            raise ImageError(
                f"{self.name} is a stack of {extent} planes. Choose one of them (--plane), "
                "or name the axis that holds channels (--channel-axis)."
            )
        position = [0] * len(shape) if position is None else position
        if len(position) != len(shape) or not all(0 <= i < n for i, n in zip(position, shape, strict=False)):
            raise ImageError(
                f"{self.name} has no plane {tuple(position)}: its stack is {extent} planes, counted from 0."
            )
        index: list[int | None] = [None] * len(self.axes)
        for axis, entry in zip(self.stack_axes, position, strict=True):
            index[axis] = entry
        return Plane.from_array(
            list(self.levels),
            rgb=self.rgb,
            displayed=(self.axes.index("Y"), self.axes.index("X")),
            index=index,
            channel_axis=self.channel_axis,
            spacing=self.spacing,
            name=self.name,
        )

    def planes(self) -> Iterator[Plane]:
        """Every plane, the last stack axis fastest."""
        for position in product(*(range(length) for length in self.stack_shape)):
            yield self.plane(position)

    def with_channel_axis(self, axis: int) -> ImageFile:
        """The same file with another axis taken as the channels. Raises ImageError where there is none."""
        ndim = len(self.axes)
        free = [i for i in range(ndim) if i not in (self.axes.index("Y"), self.axes.index("X"))]
        if not -ndim <= axis < ndim or axis % ndim not in free:
            choices = f"one of {', '.join(map(str, free))}" if free else "none: it is a grey image"
            raise ImageError(f"{self.name} has no channel axis {axis}. Choose {choices}.")
        letters = ["Q" if letter in "CS" else letter for letter in self.axes]
        letters[axis % ndim] = "C"
        return replace(self, axes="".join(letters))


def read_image(path: str | Path) -> ImageFile:
    """Open an image file or Zarr folder.

    Uncompressed TIFF and .npy are memory-mapped, large compressed TIFF and Zarr read chunk by chunk, pyramids
    kept; PNG, JPEG, BMP and small TIFF are loaded. Raises ImageError, naming the file and the next step, for
    a missing, empty, truncated or unsupported one.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path}: file not found. Check the path.")
    reader = _reader(path)
    try:
        image = reader(path)
    except ImageError:
        raise
    except Exception as error:  # every codec has errors of its own
        raise ImageError(f"{path}: cannot be read ({_reason(error)}). {_advice(error)}") from error
    shape = tuple(image.levels[0].shape)
    if 0 in shape or len(shape) < 2:
        raise ImageError(f"{path}: this is not a 2D image; its shape is {shape}. Choose another file.")
    named = "Y" in image.axes and "X" in image.axes and len(image.axes) == len(shape)
    return image if named else replace(image, axes=_guess_axes(shape))


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _advice(error: Exception) -> str:
    if "imagecodecs" in str(error) and "require" in str(error):
        return "Install that package: pip install imagecodecs"
    return "It may be damaged or incomplete: copy or convert it again."


def is_image(path: Path) -> bool:
    """Whether read_image would take this name: a known suffix, or a folder that is a Zarr array or group."""
    if path.is_dir():
        return any((path / mark).is_file() for mark in _ZARR_MARKS)
    return path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".zarr"


def _reader(path: Path) -> Callable[[Path], ImageFile]:
    if path.is_dir():
        if is_image(path):
            return _read_zarr
        raise ImageError(f"{path}: this folder is not a Zarr image. Name an image file inside it.")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty. Copy or download it again.")
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return _read_tiff
    if suffix in (".png", ".jpg", ".jpeg", ".bmp"):
        return _read_picture
    if suffix == ".npy":
        return _read_npy
    known = ", ".join(SUFFIXES)
    raise ImageError(f"{path}: files of this kind cannot be read. Convert it to one of {known}.")


def _read_npy(path: Path) -> ImageFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return ImageFile((array,), _guess_axes(array.shape), (1.0, 1.0), path.name, path)


def _guess_axes(shape: tuple[int, ...]) -> str:
    if len(shape) >= 3 and shape[-1] <= _MOST_CHANNELS and min(shape[-3:-1]) >= 2 * shape[-1]:
        return "Q" * (len(shape) - 3) + ("YXS" if shape[-1] in (3, 4) else "YXC")
    return "Q" * (len(shape) - 2) + "YX"


def _read_picture(path: Path) -> ImageFile:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", Image.DecompressionBombWarning
        )  # large is normal here; huge is an error
        try:
            with Image.open(path) as picture:
                array = np.asarray(picture.convert(_plain_mode(picture)))
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{path}: too large for this format ({error}). Convert it to a tiled TIFF."
            ) from error
    return ImageFile((array,), "YXS" if array.ndim == 3 else "YX", (1.0, 1.0), path.name, path)


def _plain_mode(picture: Any) -> str:
    """The Pillow mode without palettes, print colours or grey with alpha."""
    mode: str = picture.mode
    if mode == "P":
        return "RGBA" if "transparency" in picture.info else "RGB"
    plain = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "PA": "RGBA", "LA": "L", "La": "L"}
    return plain.get(mode, mode)


def _read_tiff(path: Path) -> ImageFile:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not file.series:
            raise ImageError(f"{path}: the TIFF holds no image. Copy or download it again.")
        series = file.series[0]
        axes = str(series.axes)
        levels = [_tiff_array(file, series)] if _is_plain(series) else _tiff_tiles(path, len(series.levels))
        (depth, *spacing), unit = _ome_spacing(file.ome_metadata)
    if "S" in axes and not axes.endswith("S") and isinstance(levels[0], np.ndarray):
        at = axes.index("S")  # planar RGB: a view with the samples last, as everyone else has them
        levels = [np.moveaxis(levels[0], at, -1)]
        axes = axes.replace("S", "") + "S"
    return ImageFile(tuple(levels), axes, (spacing[0], spacing[1]), path.name, path, depth, unit)


def _is_plain(series: Any) -> bool:
    return len(series.levels) == 1 and (series.dataoffset is not None or series.nbytes <= _LOAD_BYTES)


def _tiff_array(file: Any, series: Any) -> np.ndarray:
    """One contiguous TIFF series, memory-mapped, or a small compressed one, loaded."""
    if series.dataoffset is None:
        loaded: np.ndarray = series.asarray()
        return loaded
    expected = series.dataoffset + series.nbytes
    if file.filehandle.size < expected:
        raise ValueError(f"{file.filehandle.size} bytes, {expected} expected")
    dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
    return np.memmap(file.filehandle.path, dtype, "r", offset=series.dataoffset, shape=tuple(series.shape))


def _tiff_tiles(path: Path, n_levels: int) -> list[LazyArray]:
    """Each level of a large compressed or pyramidal TIFF as an array that decodes tile by tile."""
    import tifffile
    import zarr

    levels: list[Any] = []
    for level in range(n_levels):
        store = tifffile.imread(path, aszarr=True, series=0, level=level)
        array = zarr.open(store, mode="r")
        weakref.finalize(array, store.close)  # the file stays open as long as its pixels may be asked for
        levels.append(array)
    return levels


def _ome_spacing(description: str | None) -> tuple[tuple[float, float, float], str]:
    """Size of a pixel along (z, row, col), 1 where it is not told, and its unit."""
    from xml.etree import ElementTree

    nothing = (1.0, 1.0, 1.0), "pixel"
    if not description or "<!DOCTYPE" in description:
        return nothing
    try:
        pixels = ElementTree.fromstring(description).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return nothing
    if pixels is None or pixels.get("PhysicalSizeX") is None:
        return nothing
    unit = pixels.get("PhysicalSizeXUnit", "µm")  # the default of the OME schema
    sizes = [_positive(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"]
    return (sizes[0], sizes[1], sizes[2]), _unit(unit)


def _positive(text: Any) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return 1.0
    return value if np.isfinite(value) and value > 0 else 1.0


def _read_zarr(path: Path) -> ImageFile:
    import zarr

    node: Any = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return ImageFile((node,), _zarr_axes(node), (1.0, 1.0), path.name, path)
    attributes: Mapping[str, Any] = dict(node.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if not scales:
        inside = ", ".join(sorted(name for name, _ in node.arrays())) or "none"
        raise ImageError(
            f"{path}: this Zarr group is not an OME-Zarr image. Name one of its arrays ({inside})."
        )
    datasets = scales[0]["datasets"]
    levels = tuple(node[dataset["path"]] for dataset in datasets)
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", "tczyx")]
    axes = "".join(str(name)[:1].upper() for name in names)
    depth, *spacing = _ome_zarr_spacing(datasets[0], axes)
    units = [axis.get("unit") for axis in scales[0].get("axes", ()) if isinstance(axis, dict)]
    unit = _unit(units[axes.index("X")]) if len(units) == len(axes) and "X" in axes else "pixel"
    return ImageFile(levels, axes, (spacing[0], spacing[1]), path.name, path, depth, unit)


def _unit(name: str | None) -> str:
    """A unit's short name; "pixel" where there is none."""
    short = {"micrometer": "um", "µm": "um", "μm": "um", "millimeter": "mm", "nanometer": "nm"}
    return short.get(name, name) if name else "pixel"


def _zarr_axes(array: Any) -> str:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    axes = "".join(str(name)[:1].upper() for name in names)
    return axes if len(axes) == array.ndim and "Y" in axes and "X" in axes else _guess_axes(array.shape)


def _ome_zarr_spacing(dataset: Mapping[str, Any], axes: str) -> tuple[float, float, float]:
    """Size of a pixel along (z, row, col), 1 where it is not told."""
    for step in dataset.get("coordinateTransformations", ()):
        if step.get("type") == "scale":
            sizes = [_positive(step["scale"][axes.index(axis)]) if axis in axes else 1.0 for axis in "ZYX"]
            return sizes[0], sizes[1], sizes[2]
    return (1.0, 1.0, 1.0)
