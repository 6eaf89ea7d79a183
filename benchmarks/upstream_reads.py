"""Does the published LiteMedSAM code read a dataset of ours?

    python benchmarks/upstream_reads.py --upstream CLONE DATASET [--json OUT]

CLONE is a checkout of the branch LiteMedSAM of github.com/bowang-lab/MedSAM; it needs torch,
opencv-python-headless and tqdm. The script runs its `npz_to_npy.py` on DATASET, loads every sample through the
`NpyDataset` class of its `train_one_gpu.py`, and puts the arrays that its `CVPR24_LiteMedSAM_infer.py` asks for
through that file's own `resize_box_to_256`. Classes and functions are taken out of their files by name, because
the files themselves start training, or want a checkpoint, when imported.

What is compared: each sample is one object of one case, flips and box jitter off. Its label must be one of the
case's, and its mask must overlap the one in our case, resized the same way, with a DSC of 1. Exit status 1 if
anything differs.
"""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from lib.record import Figure, options_of, publish

from napari_medsam.curation.case import Case
from napari_medsam.curation.dataset import CuratedDataset

SIDE = 256  # of the frame the published code trains in


@dataclass(frozen=True)
class Row:
    """What came of one case: planes converted, labels drawn from them, labels lost in the small frame."""

    stem: str
    grid: tuple[int, ...]
    objects: int
    planes: int
    labels_seen: int
    labels_lost: int
    empty_planes: int
    worst_dsc: float
    boxes_ok: bool


def definition(file: Path, name: str, namespace: dict[str, Any]) -> Any:
    """Return one class or function of a script without running the rest of it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: list[ast.stmt] = [
        n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name
    ]
    if not found:
        sys.exit(f"{file} has no {name}: is this a checkout of the branch LiteMedSAM?")
    for node in ast.walk(found[0]):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    exec(compile(ast.Module(body=found, type_ignores=[]), str(file), "exec"), namespace)
    return namespace[name]


def npy_dataset(upstream: Path, folder: Path) -> Any:
    """Return the published `NpyDataset` over `folder`, without augmentation and jitter."""
    import cv2
    import torch

    names: dict[str, Any] = {"np": np, "torch": torch, "cv2": cv2, "random": random, "Dataset": object}
    exec("from glob import glob\nfrom os.path import join, isfile, basename", names)
    dataset = definition(upstream / "train_one_gpu.py", "NpyDataset", names)
    return dataset(str(folder), image_size=SIDE, bbox_shift=0, data_aug=False)


def convert(upstream: Path, dataset: Path, folder: Path) -> None:
    """Run the published `npz_to_npy.py`, as its README says."""
    script = [sys.executable, str(upstream / "npz_to_npy.py")]
    options = ["-npz_dir", str(dataset), "-npy_dir", str(folder), "-num_workers", "1"]
    subprocess.run([*script, *options], check=True)


def frame_labels(gts: np.ndarray) -> np.ndarray:
    """Our labels in the published frame: nearest neighbour, longest side to 256, padded right and below."""
    import cv2

    scale = SIDE / max(gts.shape)
    height, width = (int(n * scale + 0.5) for n in gts.shape)
    small = cv2.resize(gts, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.pad(small, ((0, SIDE - height), (0, SIDE - width)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0)


def every_sample(data: Any, index: int, labels: Sequence[int]) -> list[np.ndarray]:
    """The masks the dataset hands out for a plane; it draws a label at random, so here each is drawn in turn."""
    masks = []
    for label in labels:
        with mock.patch("random.choice", return_value=label):
            sample = data[index]
        mask = sample["gt2D"].numpy()[0].astype(bool)
        assert sample["image"].shape == (3, SIDE, SIDE)
        x0, y0, x1, y1 = sample["bboxes"].numpy().ravel().astype(int).tolist()
        rows, cols = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (cols.min(), rows.min(), cols.max(), rows.max())
        masks.append(mask)
    return masks


def check_case(data: Any, positions: dict[str, int], stem: str, case: Case, boxes_ok: bool) -> Row:
    """Compare everything the published dataset says about one case with the case itself."""
    planes = case.gts if case.gts.ndim == 3 else case.gts[None]
    names = [f"{stem}-{i:03d}" for i in range(len(planes))] if case.gts.ndim == 3 else [stem]
    seen: set[int] = set()
    worst, empty = 1.0, 0
    for plane, name in zip(planes, names, strict=True):
        framed = frame_labels(plane)
        labels = [int(v) for v in np.unique(framed) if v]
        empty += not labels
        for label, mask in zip(labels, every_sample(data, positions[name], labels), strict=True):
            worst = min(worst, dice(mask, framed == label))
            seen.add(label)
    count = len(case.objects)
    grid = tuple(case.gts.shape)
    return Row(stem, grid, count, len(planes), len(seen), count - len(seen), empty, round(worst, 4), boxes_ok)


def inference_reads(upstream: Path, path: Path) -> bool:
    """Put `imgs`, `boxes` and (in a volume) `spacing` through what the published inference does before its model."""
    resize_box = definition(upstream / "CVPR24_LiteMedSAM_infer.py", "resize_box_to_256", {"np": np})
    npz = np.load(path, "r", allow_pickle=True)  # as that script opens it
    imgs, boxes = npz["imgs"], npz["boxes"]
    volume = path.name.startswith("3D")
    if imgs.max() >= 256 or len(npz["spacing"]) != (3 if volume else 2):
        return False
    for box in boxes:
        if volume:
            x0, y0, z0, x1, y1, z1 = box
            if not (z0 < z1 and list(range(int((z1 - z0) / 2 + z0), min(z1 + 1, imgs.shape[0])))):
                return False
            box = np.array([x0, y0, x1, y1])
        small = resize_box(box, original_size=imgs.shape[1:] if volume else imgs.shape[:2])
        if not (0 <= small[0] <= small[2] <= SIDE and 0 <= small[1] <= small[3] <= SIDE):
            return False
    return True


def compare(upstream: Path, dataset: Path) -> list[Row]:
    ours = CuratedDataset(dataset)
    with tempfile.TemporaryDirectory() as folder:
        convert(upstream, dataset.resolve(), Path(folder))
        data = npy_dataset(upstream, Path(folder))
        positions = {Path(f).stem: i for i, f in enumerate(data.gt_path_files)}
        return [
            check_case(data, positions, stem, ours[stem], inference_reads(upstream, ours.file(stem)))
            for stem in ours.cases
        ]


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of the branch LiteMedSAM")
    options = parser.parse_args()
    rows = compare(options.upstream, options.dataset)
    print(f"{'case':<58} {'grid':<16} objects planes seen lost empty worst-DSC boxes")
    for row in rows:
        grid = "x".join(map(str, row.grid))
        print(
            f"{row.stem[:58]:<58} {grid:<16} {row.objects:>7} {row.planes:>6} {row.labels_seen:>4} "
            f"{row.labels_lost:>4} {row.empty_planes:>5} {row.worst_dsc:>9.4f} {'ok' if row.boxes_ok else 'NO'}"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    note = "The baseline is our own reader: every mask the published code hands out is held against ours."
    return publish("upstream_reads", "The published code reads our cases", figures(rows), note)


def figures(rows: Sequence[Row]) -> list[Figure]:
    """What came of all cases together; the rows themselves name the user's files."""
    return [
        Figure("cases, all read", len(rows), "", 1, at_least=True),
        Figure("planes converted by the published npz_to_npy.py", sum(row.planes for row in rows)),
        Figure("objects seen in the published NpyDataset", sum(row.labels_seen for row in rows)),
        Figure("objects too small for its 256 x 256 frame", sum(row.labels_lost for row in rows)),
        Figure("worst DSC of its masks with ours", min(row.worst_dsc for row in rows), "", 1, at_least=True),
        Figure("cases whose boxes its inference refuses", sum(not row.boxes_ok for row in rows), "", 0),
    ]


if __name__ == "__main__":
    sys.exit(main())
