"""Pictures of one source: its files read into 8-bit planes, with numbered masks where the source has them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

from napari_medsam.errors import MedSAMError

LONGEST_SIDE = 1500
Array = np.ndarray[Any, np.dtype[Any]]
Content = Callable[[str], bytes]


class SourceError(MedSAMError):
    """A source cannot be had as `sources.json` describes it."""


@dataclass(frozen=True)
class Take:
    """What is taken from a source: which files, how they are read, which slices of a volume."""

    reader: str  # image: one plane a file; stack: a TIFF volume; nifti; dicom: all files of a series are one volume
    paths: tuple[str, ...]  # patterns as of fnmatch; * also matches /
    most: int = 40  # files, spread evenly over the sorted matches; a dicom volume takes all
    series: int | None = None  # dicom: only files of this SeriesNumber
    axes: tuple[int, ...] = (0,)  # of a volume, sliced across each
    each: int = 4  # slices across one axis
    between: tuple[float, float] = (0.3, 0.75)  # first and last slice, as a share of the axis
    windows: tuple[
        tuple[float, float], ...
    ] = ()  # one picture each; none: percentiles, 8-bit pixels as they are
    stretch: bool = False  # percentiles for 8-bit pixels too
    mask: tuple[str, str] | None = None  # (old, new) in the image's path gives the mask's
    binary: bool = False  # the mask's connected parts are its instances; otherwise its values are


@dataclass(frozen=True)
class Picture:
    """`pixels` is uint8 (row, col) or (row, col, 3); `mask` is uint16 (row, col), 0 = background, or None."""

    stem: str
    pixels: Array
    mask: Array | None


def pictures(take: Take, listing: list[str], content: Content) -> Iterator[Picture]:
    """Yield the pictures of one take, in an order that only the listing decides.

    `listing` holds all paths of the source, `content` gives a file's bytes. A mask without any instance
    is None. Raises SourceError.
    """
    for stem, plane, mask in _planes(take, _chosen(take, listing), listing, content):
        numbered = None if mask is None else _numbered(mask, take.binary)
        for number, window in enumerate(take.windows or (None,)):
            pixels = _fitted(_eight_bit(plane, window, take.stretch), Image.Resampling.LANCZOS)
            yield Picture(f"{stem}_w{number}" if window else stem, pixels, numbered)


def _chosen(take: Take, listing: list[str]) -> list[str]:
    found: list[str] = []
    for pattern in take.paths:
        matches = [path for path in listing if fnmatchcase(path, pattern)]
        if not matches:
            raise SourceError(f"no file matches {pattern!r}; correct its paths or its commit in sources.json")
        found += sorted(matches)
    return found if take.reader == "dicom" else [found[at] for at in _spread(0, len(found) - 1, take.most)]


def _spread(first: float, last: float, most: int) -> list[int]:
    return sorted(set(np.linspace(first, last, most).astype(int).tolist()))


def _planes(
    take: Take, paths: list[str], listing: list[str], content: Content
) -> Iterator[tuple[str, Array, Array | None]]:
    if take.reader == "dicom":
        series = f"{PurePosixPath(paths[0]).parent}{'' if take.series is None else f'_series{take.series}'}"
        yield from _slices(take, _stem(series), _dicom(take, paths, content), None)
        return
    for path in paths:
        values, mask = _values(take.reader, path, content(path)), None
        if take.mask is not None:
            twin = path.replace(*take.mask)
            if twin == path or twin not in listing:
                raise SourceError(f"{path} has no mask {twin}; correct its mask in sources.json")
            mask = _values("labels" if take.reader == "image" else take.reader, twin, content(twin))
            if mask.shape != values.shape[: mask.ndim]:
                raise SourceError(f"{twin} has shape {mask.shape}, its image {values.shape}; leave it out")
        if take.reader == "image":
            yield _stem(path), values, mask
        else:
            yield from _slices(take, _stem(path), values, mask)


def _stem(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", re.sub(r"(\.nii)?\.[^./]+$", "", path)).strip("_")


def _slices(
    take: Take, stem: str, volume: Array, mask: Array | None
) -> Iterator[tuple[str, Array, Array | None]]:
    if volume.ndim != 3:
        raise SourceError(f"{stem} has shape {volume.shape}, not a volume's three axes; leave it out")
    for axis in take.axes:
        length = volume.shape[axis]
        for at in _spread(take.between[0] * length, min(take.between[1] * length, length - 1), take.each):
            part = None if mask is None else mask.take(at, axis)
            yield f"{stem}_ax{axis}_{at:03d}", volume.take(at, axis), part


def _values(reader: str, path: str, raw: bytes) -> Array:
    """Return a file's values: (row, col[, 3]) of an image, three axes of a volume."""
    readers = {"image": _image, "labels": _labels, "stack": _stack, "nifti": _nifti}
    if reader not in readers:
        raise SourceError(
            f"reader {reader!r} is unknown; use one of image, stack, nifti, dicom in sources.json"
        )
    return _guarded(path, lambda: readers[reader](raw))


def _guarded(path: str, read: Callable[[], Array]) -> Array:
    """Files of strangers fail in their readers' many ways; all of them mean the same here."""
    try:
        return read()
    except ImportError as error:
        raise SourceError(f"{path} needs a further package ({error}): pip install nibabel pydicom") from error
    except Exception as error:
        raise SourceError(f"{path} cannot be read ({error}); leave it out of sources.json") from error


def _image(raw: bytes) -> Array:
    with Image.open(io.BytesIO(raw)) as picture:
        plain = {"1": "L", "LA": "L"}.get(picture.mode, "RGB")
        return np.asarray(
            picture if picture.mode[0] in "LIF" and picture.mode != "LA" else picture.convert(plain)
        )


def _labels(raw: bytes) -> Array:
    with Image.open(io.BytesIO(raw)) as picture:  # of a palette, the numbers and not the colours
        return np.asarray(picture)


def _stack(raw: bytes) -> Array:
    return np.asarray(tifffile.imread(io.BytesIO(raw))).squeeze()


def _nifti(raw: bytes) -> Array:
    """Values in scanner orientation, turned so that slices stand upright."""
    import gzip

    import nibabel

    plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    volume = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(plain))
    return np.asarray(volume.dataobj).squeeze()[:, ::-1, ::-1].transpose(2, 1, 0)


def _dicom(take: Take, paths: list[str], content: Content) -> Array:
    """Values of a series in its modality's unit (HU for CT), files in order of InstanceNumber."""
    found: list[tuple[int, str, Array]] = []

    def read(path: str) -> Array:
        import pydicom
        from pydicom.pixels import apply_rescale

        dataset = pydicom.dcmread(io.BytesIO(content(path)))
        if take.series is None or dataset.SeriesNumber == take.series:
            found.append((int(dataset.InstanceNumber), path, apply_rescale(dataset.pixel_array, dataset)))
        return np.empty(0)

    for path in paths:
        _guarded(path, lambda path=path: read(path))  # type: ignore[misc]
    if len({plane.shape for _, _, plane in found}) != 1:
        raise SourceError(
            f"{take.paths[0]} is not one series of equal planes; name its series in sources.json"
        )
    return np.stack([plane for _, _, plane in sorted(found, key=lambda item: item[:2])])


def _eight_bit(plane: Array, window: tuple[float, float] | None, stretch: bool) -> Array:
    if plane.dtype == np.uint8 and window is None and not stretch:
        return plane
    values = np.nan_to_num(plane.astype(np.float32))
    low, high = np.percentile(values, (0.5, 99.5)) if window is None else window
    return (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255 + 0.5).astype(np.uint8)


def _numbered(mask: Array, binary: bool) -> Array | None:
    if binary:
        numbered = ndimage.label(mask > 0, np.ones((3, 3)))[0]
    else:  # a 0 put in front stays the background, whatever the mask holds
        numbered = np.unique(np.append(0, mask), return_inverse=True)[1][1:].reshape(mask.shape)
    return _fitted(numbered.astype(np.uint16), Image.Resampling.NEAREST) if numbered.any() else None


def _fitted(plane: Array, resampling: Image.Resampling) -> Array:
    scale = LONGEST_SIDE / max(plane.shape[:2])
    if scale >= 1:
        return plane
    rows, cols = (max(1, round(side * scale)) for side in plane.shape[:2])
    return np.asarray(Image.fromarray(plane).resize((cols, rows), resampling))
