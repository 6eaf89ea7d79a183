"""What a corpus costs: scale.json to SCALE.md. See `--help`."""

import sys
from pathlib import Path

from napari_medsam_training.scale import main

if __name__ == "__main__":
    sys.exit(main(recipes=Path(__file__).parent))
