"""What all that works on one image stands on: the viewer, the image with its planes, the document and its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from psygnal import Signal

from napari_medsam.document.objects import Document, Part, PartKey, PlaneKey
from napari_medsam.document.overlap import Policy
from napari_medsam.errors import MedSAMError
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane
from napari_medsam.layers.geometry import (
    WorkAxes,
    displayed_plane,
    layer_shape,
    neighbours,
    plane_of,
    view_box,
)
from napari_medsam.layers.placement import Placement

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_medsam.layers.masks import MaskLayer
    from napari_medsam.layers.prompts import PromptLayer
    from napari_medsam.session.session import Session

FEW = 30  # objects
RELABEL_S = 0.01  # an object: napari lays all texts out anew, which takes a tenth of that for each, or more
NEAR = 2  # steps of a slider that are embedded ahead


class Later(Protocol):
    """Runs a function in the owner's thread once the work of the moment is done, or so many seconds later."""

    def __call__(self, function: Callable[[], object], seconds: float = 0.0) -> None: ...


@dataclass
class Choices:
    """What the dock's controls say; shared by all images of a viewer."""

    policy: Policy = "corrected"
    class_id: int = 1
    preview: bool = True


class Stage:
    """One image in a viewer, its document, and the layers that are attached to it at the moment.

    ``notice(text)`` is something to tell the user; ``asked()`` comes when a box was drawn or clicked whose mask is now
    awaited.
    """

    notice = Signal(str)
    asked = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        session: Session,
        choices: Choices,
        later: Later,
        channel_axis: int | None = None,
    ) -> None:
        self.viewer = viewer
        self.image = image
        self.session = session
        self.choices = choices
        self.later = later
        self.axes = WorkAxes(image.ndim, channel_axis)
        self.shape = layer_shape(image)
        self.document = Document()
        self.prompts: PromptLayer | None = None
        self.masks: MaskLayer | None = None
        self._planes: dict[PlaneKey, Plane] = {}
        self._relabelling = False

    # planes -------------------------------------------------------------------------------------------------

    def shown_plane(self) -> Plane:
        """The plane on screen. Raises ImageError when there is none; see ``geometry.displayed_plane``."""
        return self.plane(displayed_plane(self.viewer, self.image, self.axes))

    def shown_key(self) -> PlaneKey | None:
        """The plane on screen; None where there is none."""
        try:
            return displayed_plane(self.viewer, self.image, self.axes)
        except MedSAMError:
            return None

    def like_shown(self) -> PlaneKey:
        """A plane as the view shows them, wherever it lies; in 3D one across the last two axes."""
        row, col = [axis for axis in range(self.axes.ndim) if axis != self.axes.channel][-2:]
        across = tuple(None if axis in (row, col, self.axes.channel) else 0 for axis in range(self.axes.ndim))
        return self.shown_key() or PlaneKey(across, (row, col))

    def following(self) -> list[Plane]:
        """The slices next to the one on screen, nearest first."""
        key = displayed_plane(self.viewer, self.image, self.axes)
        return [self.plane(near) for near in neighbours(key, self.image, self.axes, NEAR)]

    def view(self, plane: Plane) -> Box:
        """The part of a plane that is on screen, in its pixels."""
        return view_box(self.image, PlaneKey(plane.index[: self.image.ndim], plane.displayed))

    def plane(self, key: PlaneKey) -> Plane:
        if key not in self._planes:
            self._planes[key] = plane_of(self.image, key, self.axes)
        return self._planes[key]

    def placement(self, layer: Layer) -> Placement:
        """Where the shapes or points of a layer lie in the image's planes, as things are now."""
        return Placement(layer, self.viewer, self.image, self.axes)

    def forget_planes(self) -> None:
        """The image's pixels or transforms changed: boxes that still wait for a mask are asked anew."""
        self._planes.clear()
        self.session.forget()
        self.predict(self.session.awaited(self.document))

    # objects ------------------------------------------------------------------------------------------------

    def predict(self, parts: Iterable[PartKey]) -> None:
        """Ask for the masks of some parts; each plane's are decoded together."""
        by_plane: dict[PlaneKey, list[PartKey]] = {}
        for key in parts:
            by_plane.setdefault(key[1], []).append(key)
        for plane, members in by_plane.items():
            self.session.request(self.document, members, self.plane(plane))

    def relabel_soon(self) -> None:
        """Relabel once for all calls of a moment, at once where there are few: napari lays out every text anew."""
        if len(self.document) <= FEW:
            self.relabel()
        elif not self._relabelling:
            self._relabelling = True
            self.later(self.relabel, RELABEL_S * len(self.document))

    def relabel(self) -> None:
        """Bring the text and colour of every shape up to date."""
        self._relabelling = False
        if self.prompts is None:
            return
        texts = {part.key: describe(self.document, part) for part in self.document.parts()}
        colors = {record.id: self.document.class_of(record.class_id).color for record in self.document}
        self.prompts.label(texts, colors, {record.id: record.class_id for record in self.document})


def describe(document: Document, part: Part) -> str:
    """One line about an object on a plane: id, class, predicted IoU or what went wrong."""
    object_id = part.object_id
    name = document.class_of(document[object_id].class_id).name
    if part.problem:
        return f"{object_id} {name} !"
    if part.corrected:
        return f"{object_id} {name} (corrected)"
    return f"{object_id} {name}" + (f" {part.prediction.iou:.2f}" if part.prediction else " ...")
