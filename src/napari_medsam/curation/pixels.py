"""The pixels that a case keeps, and what the model sees of them later: a case must teach what inference meets.

A centred field takes its contrast from itself (`image.field.field_window`), which can be wider than the plane's. So a
case keeps the plane's range widened to that of every object's field, and is shown to the model as a plane of
intensities again, not as a finished picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_medsam.curation.case import Case, ContrastRecord
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, Window, apply_window, resolve_contrast
from napari_medsam.image.field import field_window
from napari_medsam.image.plane import Plane
from napari_medsam.segment.fields import FieldPolicy, centred_field

AS_IT_IS = (0.0, 255.0)


def case_pixels(
    plane: Plane, contrast: Contrast, boxes: Iterable[Box], policy: FieldPolicy | None = None
) -> tuple[npt.NDArray[np.uint8], Window]:
    """A whole plane as `Case.imgs`, (H, W, 3) uint8, and the limits used.

    boxes: of the plane's objects, inside it. A contrast by percentiles is widened to the range of each box's field.
    """
    window = resolve_contrast(plane, contrast)
    if contrast.mode == "auto":
        window = widened(window, plane, contrast, boxes, policy)
    return apply_window(plane.read(0, 0, *plane.shape), window), window


def widened(
    window: Window, plane: Plane, contrast: Contrast, boxes: Iterable[Box], policy: FieldPolicy | None = None
) -> Window:
    """Limits widened to the range of the field of each box of a plane, as that field's own percentiles give it."""
    policy = policy or FieldPolicy()
    fields = dict.fromkeys(centred_field(box, plane.shape, policy) for box in boxes)
    seen = replace(contrast, foreground=False)  # what inference will do with the field
    windows = [window, *(field_window(plane, seen, field) for field in fields if field.kind == "centred")]
    limits = tuple(
        (min(low for low, _ in channel), max(high for _, high in channel))
        for channel in zip(*(window.limits for window in windows), strict=True)
    )
    return Window(limits, window.channels)


def contrast_record(contrast: Contrast, window: Window) -> ContrastRecord:
    """What `Case.contrast` keeps of how its pixels were made; `seen_plane` reads it."""
    return ContrastRecord(contrast.name, contrast.mode, window.limits, window.channels)


def seen_plane(case: Case, number: int, name: str) -> Plane:
    """A plane of a case as the model is to see it, with the default contrast: intensities where the contrast was by
    percentiles, so that a field gets its own; the picture itself where it was RGB, a fixed window, or is unknown.

    number: the slice of a volume, ignored in a 2D case.
    """
    spacing = (float(case.spacing[-2]), float(case.spacing[-1]))
    by_percentiles = case.contrast.mode == "auto"
    if case.gts.ndim == 3:
        slice_ = case.imgs[number]
        if by_percentiles:
            return Plane.from_array(slice_, spacing=spacing, name=name)
        return Plane.from_array(np.repeat(slice_[..., None], 3, axis=2), rgb=True, spacing=spacing, name=name)
    channels = len(case.contrast.channels)
    if (
        not by_percentiles
        or not 1 <= channels <= 3
        or (channels == 3 and case.contrast.limits == (AS_IT_IS,) * 3)
    ):
        return Plane.from_array(case.imgs, rgb=True, spacing=spacing, name=name)
    if channels == 1:
        return Plane.from_array(case.imgs[..., 0], spacing=spacing, name=name)
    return Plane.from_array(case.imgs[..., :channels], channel_axis=2, spacing=spacing, name=name)
