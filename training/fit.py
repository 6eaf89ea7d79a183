"""A store of embeddings to a decoder, on one process or many, under Lightning Fabric. See `--help`."""

import sys

from napari_medsam_training.fit import main

if __name__ == "__main__":
    sys.exit(main())
