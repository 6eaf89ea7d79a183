"""One image and its mask to a case."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_medsam.curation.case import Case, Provenance
from napari_medsam.curation.formats.medsam import tight_boxes
from napari_medsam.curation.pixels import case_pixels, contrast_record, widened
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import PRESETS, Contrast, Window, resolve_contrast, window_channels
from napari_medsam.image.plane import Plane
from napari_medsam.records import from_plain
from napari_medsam_training.corpus.dicom import read_segmentation, read_series
from napari_medsam_training.corpus.job import Job, Settings
from napari_medsam_training.corpus.left_out import LeftOut, readable
from napari_medsam_training.corpus.nifti import read_nifti
from napari_medsam_training.corpus.objects import Objects, objects_of
from napari_medsam_training.corpus.pairing import Pair
from napari_medsam_training.corpus.pictures import read_labels, read_picture
from napari_medsam_training.corpus.raster import Raster, check_same_grid, planes_first
from napari_medsam_training.corpus.sources import Source


@dataclass(frozen=True, eq=False)
class Curated:
    """A case, the hash of its raw pixels whatever their file format, and what a reader of the report should know."""

    case: Case
    pixels: str
    remarks: tuple[str, ...]


def curate_pair(job: Job, pair: Pair) -> Curated:
    """Read a pair, check it, and make a case of it: a plane as (H, W, 3), a volume as (D, H, W).

    Raises LeftOut, whatever is wrong with the files.
    """
    images, masks = Path(job.images), Path(job.masks)
    try:
        image = _image(images, pair.image, job)
        mask = _mask(masks, pair.mask, image)
        return _curated(job, pair, image, mask)
    except LeftOut:
        raise
    except MemoryError as error:
        raise LeftOut("too-large", "There is not enough memory for it; crop it.") from error
    except Exception as error:  # each format's library fails in ways of its own on a damaged file
        raise LeftOut("unreadable", readable(error, images, masks)) from error


def _curated(job: Job, pair: Pair, image: Raster, mask: Raster) -> Curated:
    check_same_grid(image, mask)
    pixels = pixel_hash(image)
    _check_content(image)
    facts: dict[str, object] = {
        **image.facts,
        "modality": job.settings.modality,
        "target": job.settings.target,
    }
    if len(image.shape) == 3:
        image, mask, axis = planes_first(image, mask, job.settings.axis)
        facts["plane_axis"] = "zyx"[axis]
    found = objects_of(mask, job.settings.rules)
    contrast, remarks = contrast_for(job.settings, image)
    imgs, window = (_volume if len(image.shape) == 3 else _plane)(image, found, contrast, pair.key)
    if imgs.min() == imgs.max():
        limits = ", ".join(f"{lo:g} to {hi:g}" for lo, hi in window.limits[:1])
        span = f"{np.nanmin(image.data):g} to {np.nanmax(image.data):g}"
        raise LeftOut(
            "flat-image", f"Nothing is left of it within the contrast {limits}: its values are {span}."
        )
    source = {"layer": pair.key, "path": pair.image.files[0], "mask": pair.mask.files[0], **facts}
    if len(pair.image.files) > 1:  # a series is called after its folder
        source["path"] = pair.key
    case = Case(
        imgs,
        found.gts,
        image.spacing,
        found.objects,
        source=from_plain(Provenance, {"pixels_sha256": pixels, **source}, "source"),
        contrast=contrast_record(contrast, window),
        group=pair.group or pair.key,
        unit=image.unit,
        created=_date(Path(job.images, pair.image.files[0]), Path(job.masks, pair.mask.files[0])),
    )
    return Curated(case, pixels, (*remarks, *found.remarks))


def contrast_for(settings: Settings, image: Raster) -> tuple[Contrast, list[str]]:
    """The contrast of an image by its modality, and what to remark on.

    RGB as it is; CT through the window -500 to 1000 HU; all else by percentiles, MR's of the foreground. An 8-bit CT
    image has no Hounsfield units any more, so it goes by percentiles, as in the window.
    """
    if settings.contrast is not None:
        return replace(settings.contrast, percentiles=settings.percentiles), []
    auto = Contrast(percentiles=settings.percentiles)
    modality = settings.modality.lower()
    if image.rgb or modality not in ("ct", "mr", "mri"):
        return auto, []
    if modality != "ct":
        return replace(auto, foreground=True), []
    if image.data.dtype in (np.uint8, np.bool_):
        return auto, ["8-bit CT: no Hounsfield units, so contrast by percentiles"]
    remarks = ["no value under zero: are these Hounsfield units?"] if np.nanmin(image.data) >= 0 else []
    return Contrast("window", PRESETS["ct"], name="ct"), remarks


def pixel_hash(image: Raster) -> str:
    """The sha256 (hex) of raw values and shape, the same for a PNG, a TIFF and a NIfTI file of equal numbers."""
    digest = hashlib.sha256(str(image.data.shape).encode())
    for part in image.data:
        digest.update(np.ascontiguousarray(part, dtype="<f8").data)
    return digest.hexdigest()


def _image(folder: Path, source: Source, job: Job) -> Raster:
    if source.kind == "nifti":
        return read_nifti(folder / source.files[0], job.settings.channels)
    if source.kind == "dicom":
        return read_series([folder / name for name in source.files])
    if source.kind == "seg":
        raise LeftOut("no-image", "It is a DICOM segmentation among the images.")
    return read_picture(folder / source.files[0], job.settings.channels)


def _mask(folder: Path, source: Source, image: Raster) -> Raster:
    if source.kind == "nifti":
        return read_nifti(folder / source.files[0])
    if source.kind == "seg":
        return read_segmentation(folder / source.files[0], image)
    if source.kind == "dicom":
        return read_series([folder / name for name in source.files], as_labels=True)
    return read_labels(folder / source.files[0])


def _check_content(image: Raster) -> None:
    data = image.data
    if data.dtype.kind not in "biuf":
        raise LeftOut("unknown-type", f"Its values are {data.dtype}, not plain numbers.")
    if min(data.shape) == 0 or min(image.shape[-2:]) < 2:
        raise LeftOut("no-plane", f"Its shape is {' x '.join(map(str, data.shape))}, which is not an image.")
    finite = np.isfinite(data) if data.dtype.kind == "f" else None
    if finite is not None and not finite.any():
        raise LeftOut("not-finite", "None of its values is a finite number.")
    inside = data if finite is None or finite.all() else data[finite]
    if inside.min() == inside.max():
        raise LeftOut("constant-image", f"All its pixels are {inside.min():g}.")


def _plane(
    image: Raster, found: Objects, contrast: Contrast, name: str
) -> tuple[npt.NDArray[np.uint8], Window]:
    axis = 2 if image.channels else None
    plane = Plane.from_array(image.data, rgb=image.rgb, channel_axis=None if image.rgb else axis, name=name)
    return case_pixels(plane, contrast, _boxes(found.gts))


def _volume(
    image: Raster, found: Objects, contrast: Contrast, name: str
) -> tuple[npt.NDArray[np.uint8], Window]:
    """One contrast for a volume, widened on each plane to what its objects' fields show."""
    slices = [Plane.from_array(part, rgb=False, name=name) for part in image.data]
    window = resolve_contrast(Plane.from_array(image.data.reshape(-1, image.shape[-1]), name=name), contrast)
    if contrast.mode == "auto":
        for plane, labels in zip(slices, found.gts, strict=True):
            window = widened(window, plane, contrast, _boxes(labels))
    imgs = np.empty(image.shape, np.uint8)
    for part, out in zip(image.data, imgs, strict=True):
        out[...] = window_channels(part, window)[:, :, 0]
    return imgs, window


def _boxes(labels: npt.NDArray[np.int32]) -> list[Box]:
    present = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    return [Box(*box) for box in tight_boxes(labels, [label for label in present if label]).values()]


def _date(*files: Path) -> str:
    """When the later of two files was last changed: a case made again is the same, byte for byte."""
    changed = max(path.stat().st_mtime for path in files)
    return datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
