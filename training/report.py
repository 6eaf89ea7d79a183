"""One self-contained page, and CSV files, on how models do on the held-out cases of several datasets. See `--help`."""

import sys
from pathlib import Path

from napari_medsam_training.report import main

if __name__ == "__main__":
    sys.exit(main(recipes=Path(__file__).parent))
