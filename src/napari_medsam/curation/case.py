"""One curated image or volume with its corrected labels. docs/case-format.md describes the files it is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

import numpy as np

from napari_medsam.records import Open

MAX_UINT8_LABELS = 255


@dataclass(frozen=True)
class Provenance(Open):
    """Where a case came from.

    layer, path: what it was called and where it lay. index: of the plane along each axis, None along the displayed
    ones. shape, dtype: of the original.
    """

    layer: str | None = None
    path: str | None = None
    index: tuple[int | None, ...] | None = None
    displayed: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its suffix, the layer's name where there is no file."""
        if self.path:
            return PureWindowsPath(self.path).stem
        return "image" if self.layer is None else self.layer

    def same_place(self, other: Provenance) -> bool:
        """Whether both name the same plane: index, and file or else layer. Folders are not compared: data moves."""
        return self.index == other.index and self.name == other.name


@dataclass(frozen=True)
class ContrastRecord(Open):
    """How intensities became `Case.imgs`: limits and which channel they are of."""

    name: str | None = None
    mode: str | None = None
    limits: tuple[tuple[float, float], ...] = ()
    channels: tuple[int, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRecord(Open):
    """The model that predicted a case's masks."""

    name: str | None = None
    encoder_hash: str | None = None
    decoder_hash: str | None = None
    precision: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompts(Open):
    """What was drawn for an object beside its box.

    points: clicks in their order: row, col, 1 on the object or 0 beside it; whole numbers at pixel centres.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CaseObject:
    """One labelled object of a case.

    box: what was drawn, half-open floats in plane pixels, (r0, c0, r1, c1); in a volume also
    (z0, r0, c0, z1, r1, c1). predicted: the mask before correction, bool on the grid of `gts`, or None when
    the model never saw the object. source_label: its label where it came from, when the case numbers it otherwise.
    """

    label: int
    class_name: str
    class_id: int
    box: tuple[float, ...] | None = None
    predicted: np.ndarray | None = None
    corrected: bool = False
    predicted_iou: float | None = None
    source_label: int | None = None
    prompts: Prompts = Prompts()


@dataclass(frozen=True, eq=False)
class Case:
    """One image or volume with its corrected labels.

    imgs: (H, W, 3) uint8 as the model sees it, at the plane's full resolution, or (D, H, W) uint8.
    gts: (H, W) or (D, H, W) object labels, 0 = background. spacing: (row, col) or (z, row, col) in `unit`.
    field: which part of the plane the model saw. group: what must stay on one side of a split. created: ISO 8601 UTC;
    set when written, no part of the content.
    """

    imgs: np.ndarray
    gts: np.ndarray
    spacing: tuple[float, ...]
    objects: tuple[CaseObject, ...]
    source: Provenance = Provenance()
    contrast: ContrastRecord = ContrastRecord()
    field: str = "whole"
    model: ModelRecord = ModelRecord()
    group: str | None = None
    unit: str = "pixel"
    created: str = ""
