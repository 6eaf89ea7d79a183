"""Open napari with the MedSAM dock: what ``napari-medsam open`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import napari

from napari_medsam.samples import sample_layers
from napari_medsam.ui.dock.dock import MedSAMDock

WINDOW_SIZE = (1500, 920)


def open_window(
    paths: Sequence[Path] = (), sample: str | None = None, *, block: bool = True
) -> napari.Viewer:
    """Open a viewer with the dock, the files and the sample; with ``block`` return only once it is closed."""
    viewer = napari.Viewer(title="napari-medsam")
    viewer.window.resize(*WINDOW_SIZE)
    add_dock(viewer)
    for path in paths:
        viewer.open(str(path))
    if sample is not None:
        add_sample(viewer, sample)
    if block:
        napari.run()
    return viewer


def add_dock(viewer: napari.Viewer) -> MedSAMDock:
    """Put a MedSAM dock at the right of a viewer and return it."""
    dock = MedSAMDock(viewer)
    viewer.window.add_dock_widget(dock, name="MedSAM", area="right")
    return dock


def add_sample(viewer: napari.Viewer, name: str) -> None:
    """Add a sample's image and its suggested boxes."""
    for data, options, kind in sample_layers(name):
        getattr(viewer, f"add_{kind}")(data, **options)
