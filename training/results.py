"""From raw folders to the report in one command; what is done already is not done again. See `--help`."""

import sys
from pathlib import Path

from napari_medsam_training.results import main

if __name__ == "__main__":
    sys.exit(main(recipes=Path(__file__).parent))
