"""Build the interactive decoder that ships with the package. See `--help`."""

import sys
from pathlib import Path

from napari_medsam_training.interactive.build import main

if __name__ == "__main__":
    sys.exit(main(recipes=Path(__file__).parent))
