"""NIfTI volumes, turned so that planes stand upright: z from head to feet, rows to the back, columns to the left."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from napari_medsam_training.corpus.left_out import LeftOut
from napari_medsam_training.corpus.raster import LARGEST_BYTES, Raster

UPRIGHT = (
    "LPI"  # where nibabel's (x, y, z) point to; transposed, planes of each axis are as a reader sees them
)


def read_nifti(path: Path, channels: tuple[int, ...] | None = None) -> Raster:
    """A NIfTI file as (D, H, W), or (H, W) where it is one plane deep, in millimetres.

    channels: which one of a fourth axis. The header's slope and intercept are applied, as nibabel does. Raises
    LeftOut for a fourth axis without a choice and for a header without a sound geometry; nibabel's errors for what
    cannot be read.
    """
    import nibabel as nib
    from nibabel.spatialimages import SpatialImage

    file = nib.load(path)
    if not isinstance(file, SpatialImage):
        raise LeftOut("unreadable", "It is not a NIfTI image.")
    shape = tuple(int(n) for n in file.shape)
    if math.prod(shape) * 4 > 2 * LARGEST_BYTES:
        raise LeftOut("too-large", f"Its {math.prod(shape)} voxels are over what one case holds; crop it.")
    file = _three_axes(file, channels)
    if file.get_data_dtype().kind not in "biuf":
        raise LeftOut("unknown-type", f"Its values are {file.get_data_dtype()}, not plain numbers.")
    codes = _axis_codes(file.affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(file.affine), nib.orientations.axcodes2ornt(tuple(UPRIGHT))
    )
    turned = file.as_reoriented(turn)
    data = np.asarray(turned.dataobj).transpose(2, 1, 0)
    data = data.astype(np.float32) if data.dtype == np.float64 else data
    affine = np.asarray(turned.affine, np.float64)[:, [2, 1, 0, 3]]
    spacing = tuple(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    facts = {"shape": list(shape), "dtype": str(file.get_data_dtype()), "orientation": codes}
    if data.shape[0] == 1:
        return Raster(data[0], spacing[1:], "mm", facts=facts)
    return Raster(data, spacing, "mm", affine=affine, facts=facts)


def _three_axes(file: Any, channels: tuple[int, ...] | None) -> Any:
    extra = file.shape[3:]
    if math.prod(extra) == 1 and len(file.shape) >= 3:
        return file.slicer[(..., *([0] * len(extra)))] if extra else file
    if len(file.shape) == 4 and channels is not None and len(channels) == 1 and channels[0] < extra[0]:
        return file.slicer[..., channels[0]]
    raise LeftOut(
        "too-many-axes",
        f"Its shape is {' x '.join(map(str, file.shape))}; a volume has three axes (--channels chooses of a fourth).",
    )


def _axis_codes(affine: np.ndarray) -> str:
    import nibabel as nib

    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise LeftOut(
            "wrong-geometry", "Its header says that a voxel has no size; correct the header's affine."
        )
    return "".join(nib.orientations.aff2axcodes(affine))
