"""Boxes on an array, masks back: the Python API in one page.

python examples/segment_sample.py LABELS.tif
"""

from __future__ import annotations

import sys

import numpy as np
import tifffile

from napari_medsam import load_model
from napari_medsam.samples import SAMPLES, read_sample


def main(out: str) -> None:
    """Segment the coins sample and write a label image."""
    image = read_sample("coins")  # (H, W) uint8; any real dtype, RGB and channels work too
    boxes = SAMPLES["coins"].boxes  # (N, 4): r0, c0, r1, c1, half-open, in pixels

    model = load_model("lite-medsam")  # or "medsam-vit-b", "sam-vit-b", a checkpoint file, ...
    masks = model.segment(image, boxes)  # (N, H, W) bool; encodes once, then finds the embedding in the cache

    labels = np.zeros(image.shape, np.uint8)
    for label, mask in enumerate(masks, start=1):
        labels[mask] = label
    tifffile.imwrite(out, labels)
    print(f"{len(masks)} objects, {np.count_nonzero(labels)} pixels labelled, in {out}")


if __name__ == "__main__":
    main(sys.argv[1])
