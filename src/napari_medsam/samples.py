"""Samples with suggested boxes, on images that lie inside the scikit-image wheel: nothing is downloaded.

Neither Qt nor napari is imported here, so the command line and the tests can use the table too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from types import MappingProxyType
from typing import Any

import numpy as np

from napari_medsam.errors import ImageError

LayerData = tuple[Any, dict[str, Any], str]


@dataclass(frozen=True)
class Sample:
    """One sample image with suggested boxes.

    title: what the menu shows. file: name inside scikit-image's data folder.
    boxes: (r0, c0, r1, c1) each, half-open, in image pixels. classes: the class name of each box.
    """

    title: str
    file: str
    boxes: tuple[tuple[float, float, float, float], ...]
    classes: tuple[str, ...]


SAMPLES: Mapping[str, Sample] = MappingProxyType(
    {
        "ihc": Sample(
            title="Colon glands (histology, 512 x 512 RGB)",
            file="ihc.png",
            boxes=((301, 249, 511, 383), (0, 273, 299, 462), (0, 0, 264, 276), (0, 273, 198, 382)),
            classes=("gland", "gland", "gland", "lumen"),
        ),
        "retina": Sample(
            title="Eye fundus (1411 x 1411 RGB)",
            file="retina.jpg",
            boxes=((541, 122, 762, 322), (640, 637, 767, 757)),
            classes=("optic disc", "fovea"),
        ),
        "cell": Sample(
            title="Cell (holographic microscopy, 660 x 550)",
            file="cell.png",
            boxes=((308, 363, 440, 493),),
            classes=("cell",),
        ),
        "coins": Sample(
            title="Coins (303 x 384)",
            file="coins.png",
            boxes=(
                (28, 132, 75, 179),
                (95, 245, 145, 297),
                (155, 315, 219, 380),
                (169, 188, 217, 237),
                (232, 18, 289, 75),
                (175, 79, 218, 125),
            ),
            classes=("coin",) * 6,
        ),
    }
)


def find_sample(name: str) -> Sample:
    """The sample of that name. ImageError lists the names there are."""
    try:
        return SAMPLES[name]
    except KeyError:
        raise ImageError(f"There is no sample {name!r}. Choose one of {', '.join(SAMPLES)}.") from None


def read_sample(name: str) -> np.ndarray:
    """The sample's pixels, uint8: (H, W), or (H, W, 3) RGB. Raises ImageError where the file is missing."""
    from PIL import Image

    sample = find_sample(name)
    try:
        with as_file(files("skimage") / "data" / sample.file) as path, Image.open(path) as image:
            return np.asarray(image)
    except OSError as error:
        raise ImageError(
            f"The sample {name!r} cannot be read ({error}). "
            "Reinstall scikit-image, whose wheel carries it as skimage/data/" + sample.file + "."
        ) from error


def sample_layers(name: str) -> list[LayerData]:
    """The sample as napari layer data: the Image, and a Shapes layer with the suggested boxes."""
    sample = find_sample(name)
    pixels = read_sample(name)
    return [(pixels, {"name": name, "rgb": pixels.ndim == 3}, "image"), _boxes_layer(name, sample, pixels)]


def ihc() -> list[LayerData]:
    """Colon glands in histology, three of them and a lumen boxed."""
    return sample_layers("ihc")


def retina() -> list[LayerData]:
    """An eye fundus, its optic disc and fovea boxed."""
    return sample_layers("retina")


def cell() -> list[LayerData]:
    """A cell seen by holographic microscopy, boxed."""
    return sample_layers("cell")


def coins() -> list[LayerData]:
    """Old coins, six of them boxed."""
    return sample_layers("coins")


def _boxes_layer(name: str, sample: Sample, pixels: np.ndarray) -> LayerData:
    options = {
        "name": f"{name} boxes",
        "shape_type": "rectangle",
        "face_color": "transparent",
        "edge_color": "yellow",
        "edge_width": max(1.0, max(pixels.shape[:2]) / 300),
        "metadata": {"napari_medsam": {"role": "prompts", "classes": list(sample.classes)}},
    }
    return [_corners(box) for box in sample.boxes], options, "shapes"


def _corners(box: tuple[float, float, float, float]) -> np.ndarray:
    # A layer's coordinate i is the centre of pixel i, a box's the pixel's edge: half a pixel between them.
    r0, c0, r1, c1 = (edge - 0.5 for edge in box)
    return np.array([[r0, c0], [r0, c1], [r1, c1], [r1, c0]])
