"""A real image set as a curated dataset: each image a case, its ground truth the corrected labels.

python benchmarks/cases.py SET DATASET [--data DIR] [--images N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.cases import case_of, image_paths
from lib.images import data_folder

from napari_medsam.curation.dataset import CuratedDataset


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    paths = image_paths(data_folder(options.data), options.set)[: options.images]
    dataset = CuratedDataset(options.dataset, create=True)
    written = dataset.extend(case_of(options.set, path) for path in paths)
    print(f"{len(written)} cases in {options.dataset}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
