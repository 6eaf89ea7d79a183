"""Raw images and masks to a dataset of cases, with a split and a report. See `--help`."""

import sys

from napari_medsam_training.curate import main

if __name__ == "__main__":
    sys.exit(main())
