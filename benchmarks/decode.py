"""Decoding boxes on one embedding with LiteMedSAM.

    python benchmarks/decode.py [--json OUT] [--rounds N]

Baseline in the same run: the published prompt encoder and mask decoder in torch eager float32, boxes as one
batch. The rivals take turns. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import sys
from statistics import median

import numpy as np
from lib.paired import ratio, take_turns
from lib.published import published_decode, published_lite
from lib.record import Figure, options_of, publish


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds for one box; fewer for many boxes")
    arguments = parser.parse_args()
    return publish(
        "decode", "Decoding boxes on one embedding", figures(arguments.rounds), _note(), copy=arguments.json
    )


def figures(rounds: int) -> list[Figure]:
    """Ours against the published decoder, and many boxes against as many single ones."""
    import torch

    from napari_medsam.model.local import build_model
    from napari_medsam.model.networks.decoder import FAR

    net, model = published_lite(), build_model("lite-medsam-box", "cpu")
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    features = model.encode(model.prepare(image)).features
    embedding = torch.from_numpy(features.astype(np.float32))[None]
    boxes = random_boxes(200)
    xy = torch.from_numpy(boxes[:, [1, 0, 3, 2]])

    def stock(count: int) -> np.ndarray:
        return published_decode(net, embedding, xy[:count]).numpy()

    def ours(count: int) -> np.ndarray:
        return model.decode(features, boxes[:count], key="kept").logits

    def singles(count: int) -> list[np.ndarray]:
        return [model.decode(features, boxes[i : i + 1], key="kept").logits for i in range(count)]

    logits = ours(4)  # far from its box ours looks for nothing
    apart = float(np.abs(stock(4)[:, 0] - logits)[logits > FAR].max())
    one = take_turns(
        {
            "published": lambda: stock(1),
            "ours": lambda: ours(1),
            "unkept": lambda: model.decode(features, boxes[:1]),
        },
        rounds,
        warm=3,
    )
    batch = take_turns({"published": lambda: stock(64), "ours": lambda: ours(64)}, 2, warm=0)
    many = take_turns({"singles": lambda: singles(200), "together": lambda: ours(200)}, 2, warm=0)
    return [
        Figure("largest difference of logits", apart, "", 1e-3),
        Figure("one box, published", 1e3 * median(one["published"]), "ms"),
        Figure("one box, ours, new embedding", 1e3 * median(one["unkept"]), "ms"),
        Figure("one box, ours, embedding used before", 1e3 * median(one["ours"]), "ms"),
        Figure("one box, ours / published", ratio(one, "ours", "published"), "x", 0.5),
        Figure("64 boxes, published batch", median(batch["published"]), "s"),
        Figure("64 boxes, ours", median(batch["ours"]), "s"),
        Figure("64 boxes, ours / published", ratio(batch, "ours", "published"), "x", 0.25),
        Figure("200 boxes at once / 200 single ones", ratio(many, "together", "singles"), "x", 1.2),
    ]


def random_boxes(count: int) -> np.ndarray:
    """(count, 4) float32 boxes (r0, c0, r1, c1) of all sizes inside the frame."""
    rng = np.random.default_rng(1)
    corner, extent = rng.uniform(0, 200, (count, 2)), rng.uniform(8, 56, (count, 2))
    return np.concatenate([corner, corner + extent], axis=1).astype(np.float32)


def _note() -> str:
    return "LiteMedSAM, 256 x 256 logits a box. Ratios are medians over rounds in which each took one turn."


if __name__ == "__main__":
    sys.exit(main())
