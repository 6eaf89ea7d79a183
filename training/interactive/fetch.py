"""Fetch the freely licensed pictures from which the shipped interactive decoder is trained. See `--help`."""

import sys
from pathlib import Path

from napari_medsam_training.interactive.fetch import main

if __name__ == "__main__":
    sys.exit(main(recipes=Path(__file__).parent))
