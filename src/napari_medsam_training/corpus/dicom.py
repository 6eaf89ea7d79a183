"""DICOM series and segmentations, in the same upright axes as NIfTI; sorting and geometry are highdicom's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_medsam_training.corpus.left_out import LeftOut
from napari_medsam_training.corpus.raster import Raster

UPRIGHT = "IPL"  # where (z, row, col) of an array point to
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_series(files: Sequence[Path], as_labels: bool = False) -> Raster:
    """A series as (D, H, W) in millimetres, a single image as (H, W) or RGB (H, W, 3).

    Stored values go through the modality transform (Hounsfield units in CT). Raises LeftOut for a series whose slices
    are missing, doubled or of uneven spacing, and pydicom's errors for what cannot be read.
    """
    import highdicom
    import pydicom

    datasets = [pydicom.dcmread(path) for path in files]
    if len(datasets) == 1 and not _in_space(datasets[0]):
        return _single(datasets[0])
    if not all(_in_space(dataset) for dataset in datasets):
        raise LeftOut("irregular-series", "Not all of its images say where they lie, so it is not a volume.")
    if highdicom.spatial.get_series_volume_positions(datasets)[0] is None:
        what = "Its slices do not make a volume: some are missing, doubled or unevenly spaced."
        raise LeftOut("irregular-series", what)
    volume = highdicom.get_volume_from_series(datasets, dtype=np.int32 if as_labels else np.float32)
    return _upright(volume, _facts(datasets[0], len(datasets)))


def read_segmentation(path: Path, image: Raster) -> Raster:
    """A DICOM segmentation as labels, its segment numbers, on the image's grid: slices it leaves out are empty.

    Raises LeftOut for segments that overlap and for one that does not lie on the image's grid.
    """
    import highdicom

    segmentation = highdicom.seg.segread(path)
    try:
        volume = segmentation.get_volume(combine_segments=True, dtype=np.uint16)
    except (RuntimeError, ValueError) as error:
        raise LeftOut("unusable-segmentation", f"Its segments make no label image ({error}).") from error
    if image.geometry is not None:
        try:
            volume = volume.match_geometry(image.geometry)
        except (RuntimeError, ValueError) as error:
            raise LeftOut(
                "wrong-geometry", f"The segmentation is not on its image's grid ({error})."
            ) from error
    return _upright(volume, {})


def _in_space(dataset: Any) -> bool:
    return "ImagePositionPatient" in dataset and "ImageOrientationPatient" in dataset


def _upright(volume: Any, facts: dict[str, object]) -> Raster:
    turned = volume.to_patient_orientation(UPRIGHT)
    affine = _TO_RAS @ np.asarray(turned.affine, np.float64)
    spacing = tuple(float(v) for v in turned.spacing)
    data = np.ascontiguousarray(turned.array)
    if data.shape[0] == 1:
        return Raster(data[0], spacing[1:], "mm", facts=facts, geometry=volume.get_geometry())
    return Raster(data, spacing, "mm", affine=affine, facts=facts, geometry=volume.get_geometry())


def _single(dataset: Any) -> Raster:
    from pydicom.pixels import apply_modality_lut, pixel_array

    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise LeftOut("too-many-axes", "It has several frames; save each as an image of its own.")
    data = pixel_array(dataset)
    if data.ndim == 3:
        return Raster(
            data, _pixel_size(dataset)[0], _pixel_size(dataset)[1], True, True, facts=_facts(dataset, 1)
        )
    data = np.asarray(apply_modality_lut(data, dataset))
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # small values are bright
        data = data.max() - data + data.min()
    return Raster(data, *_pixel_size(dataset), facts=_facts(dataset, 1))


def _pixel_size(dataset: Any) -> tuple[tuple[float, float], str]:
    size = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    return ((float(size[0]), float(size[1])), "mm") if size else ((1.0, 1.0), "pixel")


def _facts(dataset: Any, count: int) -> dict[str, object]:
    return {
        "shape": [count, int(dataset.Rows), int(dataset.Columns)],
        "dicom_modality": str(dataset.get("Modality", "")),
    }
