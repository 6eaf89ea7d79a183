"""One self-contained page, and CSV files, on how models do on the held-out cases of several datasets. See `--help`."""

import sys

from napari_medsam_training.report import main

if __name__ == "__main__":
    sys.exit(main())
