"""Large objects decoded field by field: `detail` K against one field, on real images with ground truth.

    python benchmarks/detail.py [--json OUT] [--data DIR] [--objects N] [--details K ...] [--sets NAME ...]

DSC of the released decoder, boxes 0 to 5 % too large on each side. Objects: all vessels of a fundus image as one
(`fundus_chase`), the largest cells of an electron micrograph (`em_isbi2012`), the lesion of a dermoscopy image
(`skin_isic`). The baseline, the same box on the whole plane, is scored on the same objects in the same run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lib.images import SEED, data_folder, read_picture
from lib.record import Figure, options_of, publish
from scipy import ndimage

from napari_medsam import Segmenter, load_model
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.evaluate.metrics import box_from_mask, dice_coefficient
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane
from napari_medsam.segment.detail import detail_fields
from napari_medsam.segment.fields import DEFAULT_POLICY

SETS = {"fundus_chase": "all vessels", "em_isbi2012": "largest cells", "skin_isic": "lesion"}


def main() -> int:
    parser = options_of(__doc__, data=True)
    parser.add_argument("--objects", type=int, default=1, help="of each set, one an image")
    parser.add_argument("--details", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    options = parser.parse_args()
    data = data_folder(options.data)
    with tempfile.TemporaryDirectory() as folder:
        segmenter = load_model("lite-medsam", cache=EmbeddingCache(Path(folder)))
        figures = [
            figure
            for name in options.sets
            for figure in _figures(segmenter, data / name, options.objects, options.details)
        ]
    note = (
        "DSC of the released decoder; " + f"{options.objects} object(s) of each set, the same for each row."
    )
    return publish("detail", "Large objects, field by field", figures, note, copy=options.json)


def _figures(segmenter: Segmenter, folder: Path, count: int, details: list[int]) -> Iterator[Figure]:
    scores: dict[str, list[float]] = {}
    for plane, mask, box in _objects(folder, count):
        ways: list[tuple[str, str, int]] = [("whole plane", "whole", 1), ("field auto", "auto", 1)]
        ways += [(f"detail {detail}", "auto", detail) for detail in details]
        for way, field, detail in ways:
            (prediction,) = segmenter.predict(plane, [box], field=field, detail=detail)
            dsc = dice_coefficient(prediction.full(plane.shape), mask)
            scores.setdefault(way, []).append(dsc)
            fields = len(detail_fields(box, plane.shape, detail, DEFAULT_POLICY)) or 1
            print(f"{plane.name} {way}: {dsc:.3f}, {fields} fields", file=sys.stderr, flush=True)
    for way, dice in scores.items():
        yield Figure(f"{folder.name}, {SETS[folder.name]}: {way}", float(np.mean(dice)), "DSC")


def _objects(folder: Path, count: int) -> Iterator[tuple[Plane, np.ndarray, Box]]:
    """The largest object of each of some images, spread over the set."""
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    images = sorted((folder / "images").iterdir())
    rng = np.random.default_rng(SEED)
    for path in images[:: max(1, len(images) // count)][:count]:
        pixels, target = read_picture(path), read_picture(masks[path.stem])
        target = (target if target.ndim == 2 else target[..., 0]) > 0
        mask = target if folder.name == "fundus_chase" else _largest(target)
        yield (
            Plane.from_array(pixels, rgb=pixels.ndim == 3, name=path.name),
            mask,
            Box(*box_from_mask(mask, rng)),
        )


def _largest(target: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(target)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


if __name__ == "__main__":
    sys.exit(main())
