"""The room stands without torch, Qt and napari."""

from __future__ import annotations

import subprocess
import sys


def test_no_heavy_imports() -> None:
    code = (
        "import sys, napari_medsam.curation.dataset, napari_medsam.curation.case\n"
        "heavy = {'torch', 'zarr', 'napari', 'qtpy', 'skimage', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
