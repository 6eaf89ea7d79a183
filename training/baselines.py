"""A specialist U-Net for one dataset. See `--help`."""

import sys

from napari_medsam_training.baselines import main

if __name__ == "__main__":
    sys.exit(main())
