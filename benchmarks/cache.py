"""The embedding cache on LiteMedSAM's own embeddings: size, speed, fidelity, and what a kill costs.

    python benchmarks/cache.py [--json OUT] [--data DIR] [--images N] [--fields N]

Baselines in the same run: the embedding as raw float16 (np.save), as a script would keep it (torch.save of
float32), and encoding it again. Masks from cached embeddings are held against those from the published
encoder's float32 output. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cache_crash import kill_and_resume, two_processes
from lib.record import Figure, options_of, publish

from napari_medsam.embedding.cache import EmbeddingCache, embedding_key
from napari_medsam.embedding.embed import FieldRequest, embed
from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.field import read_field, whole_field
from napari_medsam.image.plane import Plane

SETS = ("bact_trpl", "histo_monusac", "nuclei_dsb2018", "polyp_kvasir", "us_carotid", "xray_lung")
MIB = 2**20
Pair = tuple[np.ndarray, np.ndarray | None]


# Images


def samples(data: Path, count: int) -> list[Pair]:
    """Images with their masks from the image sets; where they are absent, scikit-image's own without masks."""
    from lib.images import read_pairs

    present = [data / name for name in SETS if (data / name / "images").is_dir()]
    if present:
        each = -(-count // len(present))
        return [pair for folder in present for pair in read_pairs(folder, each)][:count]
    import skimage.data

    names = ("immunohistochemistry", "coins", "cell", "human_mitosis", "page", "brick")
    return [(getattr(skimage.data, name)(), None) for name in names][:count]


def prepared_tensor(model: Any, plane: Plane) -> np.ndarray:
    window = resolve_contrast(plane, Contrast())
    return np.asarray(model.prepare(read_field(plane, whole_field(plane.shape), window, model.frame)))


# Size and speed


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def drop_from_page_cache(path: Path) -> bool:
    """Make the next read of a file come from the disk; whether this system can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


@dataclass(frozen=True)
class Store:
    """One way to keep embeddings: the file of each, how to write the i-th and how to read it back."""

    name: str
    path: Callable[[int], Path]
    write: Callable[[int], object]
    read: Callable[[int], object]

    def measure(self, count: int, *, ours: bool = False) -> list[Figure]:
        """Largest and mean size, and median times; reads from the page cache, then right after leaving it."""
        written = [milliseconds(lambda i=i: self.write(i)) for i in range(count)]
        sizes = [self.path(i).stat().st_size / MIB for i in range(count)]
        self.read(0)
        warm = [milliseconds(lambda i=i: self.read(i)) for _ in range(5) for i in range(count)]
        cold = [
            milliseconds(lambda i=i: self.read(i)) for i in range(count) if drop_from_page_cache(self.path(i))
        ]
        figures = [
            Figure(f"{self.name}: largest", max(sizes), "MiB", 1.8 if ours else None),
            Figure(f"{self.name}: mean", float(np.mean(sizes)), "MiB"),
            Figure(f"{self.name}: write", float(np.median(written)), "ms"),
            Figure(
                f"{self.name}: read, file in the page cache",
                float(np.median(warm)),
                "ms",
                15 if ours else None,
            ),
        ]
        if cold:
            figures.append(Figure(f"{self.name}: read from the disk", float(np.median(cold)), "ms"))
        return figures


def stores(folder: Path, keys: list[str], features: list[np.ndarray]) -> list[Figure]:
    """Our entries beside the same embeddings as raw float16 and as torch.save of float32."""
    import torch

    cache = EmbeddingCache(folder / "ours", memory_bytes=0)
    raw = [folder / f"{i}.npy" for i in range(len(features))]
    stock = [folder / f"{i}.pt" for i in range(len(features))]
    singles = [torch.from_numpy(array.astype(np.float32)) for array in features]
    ours = Store(
        "cache entry",
        lambda i: next((folder / "ours").rglob(f"{keys[i]}*")),
        lambda i: cache.put(keys[i], features[i]),
        lambda i: cache.get(keys[i]),
    )
    npy = Store(
        "np.save float16", raw.__getitem__, lambda i: np.save(raw[i], features[i]), lambda i: np.load(raw[i])
    )
    pt = Store(
        "torch.save float32",
        stock.__getitem__,
        lambda i: torch.save(singles[i], stock[i]),
        lambda i: torch.load(stock[i], weights_only=True),
    )
    count = len(features)
    return [*ours.measure(count, ours=True), *npy.measure(count), *pt.measure(count)]


def codecs(folder: Path, features: list[np.ndarray]) -> list[Figure]:
    """What other compression settings would give: the reason for the one in use, zstd 5 with byte shuffle."""
    import zarr
    from zarr.codecs import BloscCodec
    from zarr.storage import ZipStore

    figures = []
    others = [
        ("lz4", 5, "bitshuffle"),
        ("zstd", 1, "bitshuffle"),
        ("zstd", 3, "bitshuffle"),
        ("zstd", 3, "shuffle"),
    ]
    for name, level, shuffle in [*others, ("zstd", 5, "shuffle"), ("zstd", 7, "shuffle")]:
        codec = BloscCodec(typesize=2, cname=name, clevel=level, shuffle=shuffle)
        sizes, times = [], []
        for i, array in enumerate(features):
            path = folder / f"{name}{level}{shuffle}{i}.zip"
            start = time.perf_counter()
            with ZipStore(path, mode="w") as store:
                zarr.create_array(store, data=array, chunks=array.shape, compressors=codec)
            times.append(1e3 * (time.perf_counter() - start))
            sizes.append(path.stat().st_size / MIB)
        what = f"{name} {level} {shuffle}"
        figures.append(Figure(f"{what}: largest", max(sizes), "MiB"))
        figures.append(Figure(f"{what}: write", float(np.median(times)), "ms"))
    return figures


# Fidelity


def fidelity(
    model: Any, pairs: list[Pair], tensors: list[np.ndarray], cached: list[np.ndarray]
) -> list[Figure]:
    """DSC of masks from cached float16 embeddings, and from the published encoder's float32 output."""
    import torch
    from lib.images import objects_of
    from lib.published import PublishedSequence

    from napari_medsam.evaluate.metrics import box_from_mask, dice_coefficient

    encoder = PublishedSequence().net.image_encoder
    rng = np.random.default_rng(2024)
    dsc: list[tuple[float, float]] = []  # of the masks from fresh and from cached features
    between: list[float] = []
    for (image, truth), tensor, features in zip(pairs, tensors, cached, strict=True):
        with torch.inference_mode():
            fresh = encoder(torch.from_numpy(tensor)[None])[0].numpy()
        field = whole_field(image.shape[:2])
        objects = objects_of(truth)[:10] if truth is not None else []
        boxes = [box_from_mask(item, rng) for item in objects]
        boxes = boxes or [np.array([0.25, 0.25, 0.75, 0.75]) * (image.shape[:2] * 2)]
        in_frame = field.to_frame(np.stack(boxes), model.frame)
        height, width = model.frame.shape(field)
        masks = [
            model.decode(source, in_frame).logits[:, :height, :width] > 0 for source in (fresh, features)
        ]
        between += [dice_coefficient(*pair) for pair in zip(*masks, strict=True)]
        for i, item in enumerate(objects):
            target = shrunk(item, (height, width))
            dsc.append((dice_coefficient(masks[0][i], target), dice_coefficient(masks[1][i], target)))
    figures = [
        Figure("DSC of masks from cached against masks from fresh embeddings", float(np.mean(between)))
    ]
    if dsc:
        fresh_dsc, cached_dsc = (float(value) for value in np.mean(dsc, axis=0))
        figures += [
            Figure(f"DSC of {len(dsc)} objects, published encoder, float32", fresh_dsc),
            Figure(f"DSC of {len(dsc)} objects, cached", cached_dsc),
            Figure("DSC, absolute difference of the two", abs(cached_dsc - fresh_dsc), "", 0.001),
        ]
    return figures


def shrunk(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A ground truth on the frame's grid: the pixels under the frame's pixel centres."""
    rows, cols = (
        ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, cols)]


def measure(data: Path, images: int, fields: int) -> list[Figure]:
    from napari_medsam.model.local import build_model

    model = build_model("lite-medsam")
    pairs = samples(data, images)
    requests = [FieldRequest(Plane.from_array(image), Contrast()) for image, _ in pairs]
    tensors = [prepared_tensor(model, request.plane) for request in requests]
    model.encode(tensors[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = EmbeddingCache(folder / "store", memory_bytes=0)
        misses = [milliseconds(lambda r=r: embed(model, cache, r)) for r in requests]
        hits = [milliseconds(lambda r=r: embed(model, cache, r)) for r in requests]
        keys = [milliseconds(lambda t=t: embedding_key(t, "e", "p")) for t in tensors]
        found = [embed(model, cache, request) for request in requests]
        cached = [embedding.features for embedding in found]
        return [
            *stores(folder, [embedding.key for embedding in found], cached),
            Figure("embed, not cached: encode and keep", float(np.median(misses)), "ms"),
            Figure("embed, cached on disk: read the image, make the key, read", float(np.median(hits)), "ms"),
            Figure("making a key", float(np.median(keys)), "ms"),
            *fidelity(model, pairs, tensors, cached),
            *(kill_and_resume(folder / "killed", fields) if os.name != "nt" else []),
            *two_processes(folder / "shared", max(4, fields // 4)),
            *codecs(folder, cached),
        ]


def main(arguments: list[str] | None = None) -> int:
    parser = options_of(__doc__, data=True)
    parser.add_argument("--images", type=int, default=12, help="how many images to embed")
    parser.add_argument("--fields", type=int, default=16, help="fields of the run that is killed")
    options = parser.parse_args(arguments)
    from lib.images import data_folder

    figures = measure(data_folder(options.data), options.images, options.fields)
    note = "Times are medians over the images. Read and write figures are of one embedding, (256, 64, 64)."
    return publish("cache", "The embedding cache", figures, note, copy=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
