"""A dataset's embeddings, boxes and targets to a sharded store that training reads. See `--help`."""

import sys

from napari_medsam_training.embed import main

if __name__ == "__main__":
    sys.exit(main())
