"""Pictures, TIFF, .npy and OME-Zarr: read by the package's own reader, as an image or as labels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from napari_medsam.image.read import ImageFile, read_image
from napari_medsam_training.corpus.left_out import LeftOut
from napari_medsam_training.corpus.raster import LARGEST_BYTES, Raster

_LOSSY = (".jpg", ".jpeg")


def read_picture(path: Path, channels: tuple[int, ...] | None) -> Raster:
    """An image: a plane, or a stack along Z (or along one axis without a name).

    channels: which to keep; None takes RGB as it is, or all where there are up to three. A volume keeps one.
    Raises LeftOut, and ImageError for what cannot be read.
    """
    file = read_image(path)
    _check(file)
    if file.stack_shape and math.prod(file.stack_shape) > 1:
        return _volume(file, channels)
    plane = next(file.planes())
    if channels is None and plane.n_channels > 3:
        raise LeftOut(
            "many-channels", f"It has {plane.n_channels} channels; choose up to three (--channels)."
        )
    data = plane.read(0, 0, *plane.shape, channels=_known(channels, plane.n_channels))
    return Raster(
        data, plane.spacing, file.unit, data.ndim == 3, plane.rgb and channels is None, facts=_facts(file)
    )


def read_labels(path: Path) -> Raster:
    """A mask as its values stand in the file: palette indices stay indices, grey stored as RGB is grey again.

    Raises LeftOut for colours that are no labels, and ImageError for what cannot be read.
    """
    if path.is_file() and path.suffix.lower() == ".png":
        palette = _palette(path)
        if palette is not None:
            return Raster(palette, (1.0, 1.0))
    file = read_image(path)
    _check(file)
    if file.stack_shape and math.prod(file.stack_shape) > 1:
        return _volume(file, None)
    plane = next(file.planes())
    data = plane.read(0, 0, *plane.shape)
    if data.ndim == 3:
        if (data != data[:, :, :1]).any():
            raise LeftOut("colour-mask", "Its mask is coloured; save labels as numbers, one channel.")
        data = data[:, :, 0]
    return Raster(data, plane.spacing, file.unit, lossy=path.suffix.lower() in _LOSSY)


def _palette(path: Path) -> np.ndarray | None:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture) if picture.mode == "P" else None
    except Exception:  # the package's reader says what is the matter
        return None


def _check(file: ImageFile) -> None:
    nbytes = math.prod(file.levels[0].shape) * np.dtype(file.levels[0].dtype).itemsize
    if nbytes > LARGEST_BYTES:
        raise LeftOut(
            "too-large", f"Its {nbytes / 2**30:.1f} GiB are over what one case holds; cut it into parts."
        )
    letters = [file.axes[axis] for axis, n in zip(file.stack_axes, file.stack_shape, strict=True) if n > 1]
    if len(letters) > 1 or letters == ["T"]:
        what = f"Its axes are {file.axes}; a case is a plane or one volume. Save each time point as a file of its own."
        raise LeftOut("too-many-axes", what)


def _volume(file: ImageFile, channels: tuple[int, ...] | None) -> Raster:
    count = next(file.planes()).n_channels
    if count > 1 and (channels is None or len(channels) != 1):
        raise LeftOut("many-channels", f"It is a volume of {count} channels; choose one (--channels).")
    wanted = _known(channels, count) or [0]
    planes = (plane.read(0, 0, *plane.shape, channels=wanted) for plane in file.planes())
    data = np.stack([plane[:, :, 0] if plane.ndim == 3 else plane for plane in planes])
    return Raster(data, (file.depth, *file.spacing), file.unit, facts=_facts(file))


def _known(channels: tuple[int, ...] | None, count: int) -> list[int] | None:
    if channels is not None and not all(0 <= channel < count for channel in channels):
        raise LeftOut("no-such-channel", f"It has {count} channels, not channel {max(channels)}.")
    return None if channels is None else list(channels)


def _facts(file: ImageFile) -> dict[str, object]:
    return {
        "shape": [int(n) for n in file.levels[0].shape],
        "dtype": str(np.dtype(file.levels[0].dtype)),
        "axes": file.axes,
    }
