"""Open napari with the MedSAM dock, and each panel beside the other: where the panels are put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import napari

from napari_medsam.samples import sample_layers
from napari_medsam.ui.desk.desk import Desk
from napari_medsam.ui.dock.dock import MedSAMDock
from napari_medsam.ui.retrain.panel import RetrainPanel

WINDOW_SIZE = (1500, 920)


def open_window(
    paths: Sequence[Path] = (), sample: str | None = None, *, block: bool = True
) -> napari.Viewer:
    """Open a viewer with the dock, the files and the sample; with ``block`` return only once it is closed."""
    viewer = napari.Viewer(title="napari-medsam")
    viewer.window.resize(*WINDOW_SIZE)
    add_dock(Desk(viewer))
    for path in paths:
        viewer.open(str(path))
    if sample is not None:
        for data, options, kind in sample_layers(sample):
            getattr(viewer, f"add_{kind}")(data, **options)
    if block:
        napari.run()
    return viewer


def add_dock(desk: Desk) -> MedSAMDock:
    """Show a desk in a MedSAM dock at the right of its viewer."""
    dock = MedSAMDock(desk, open_retrain)
    desk.viewer.window.add_dock_widget(dock, name="MedSAM", area="right")
    return dock


def open_retrain(desk: Desk) -> RetrainPanel:
    """Show the Retrain panel of a desk as a tab beside its dock; one that is open already comes to the front."""
    window = desk.viewer.window
    panel = next((one for one in window.dock_widgets.values() if isinstance(one, RetrainPanel)), None)
    if panel is None:
        panel = RetrainPanel(desk)
        window.add_dock_widget(panel, name="Retrain", area="right", tabify=True)
    holder: Any = panel.parent()
    holder.show()
    holder.raise_()
    return panel


class MenuDock(MedSAMDock):
    """The MedSAM dock as napari's menu opens it: it hands over the viewer alone."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(Desk(viewer), open_retrain)


class MenuRetrain(RetrainPanel):
    """The Retrain panel as napari's menu opens it: for the viewer's dock, which is opened where there is none."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        docks = (one for one in viewer.window.dock_widgets.values() if isinstance(one, MedSAMDock))
        dock = next(docks, None) or add_dock(Desk(viewer))
        super().__init__(dock.desk)
