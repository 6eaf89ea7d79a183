"""The public API: a model and its cache answer boxes and clicks on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, Window, resolve_contrast
from napari_medsam.image.field import Field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.clicks import check_learned
from napari_medsam.segment.detail import check_detail
from napari_medsam.segment.engine import Answer, ClickHistory, PromptInput, answer_prompts
from napari_medsam.segment.fields import field_of
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Prompt, boxes_in_plane

if TYPE_CHECKING:
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.model.local import MedSAM


class Segmenter:
    """A model and its embedding cache: what scripts use.

    >>> masks = load_model("lite-medsam").segment(image, [[10, 20, 110, 140]])
    """

    def __init__(self, model: MedSAM, cache: EmbeddingCache | None = None) -> None:
        self.model = model
        self.cache = cache

    def segment(
        self,
        image: Any,
        boxes: npt.ArrayLike,
        contrast: str | Contrast = "auto",
        field: str | Field = "auto",
        rgb: bool | None = None,
        channel_axis: int | None = None,
        channels: Sequence[int] | None = None,
        detail: int = 1,
    ) -> npt.NDArray[np.bool_]:
        """One mask for each box.

        image: a Plane, or array-like (H, W) or (H, W, 3 or 4) of any real dtype, or (with channel_axis) one
        with channels. boxes: (N, 4) half-open (r0, c0, r1, c1) in pixels. contrast: "auto" (percentiles of the
        plane, or of a small box's own field), a preset such as "ct-soft", or "LO,HI". field: "auto" shows small
        boxes a field around them, "whole" always the whole plane.
        channels: one to three channels to use. detail: 1, or K from 2 to 32 to decode each box on overlapping
        fields of about 1 / K of its longer side, some 4 * K**2 of them; for thin parts of large objects with a
        decoder fine-tuned on them. A box too small to be divided is answered as `field` says.
        Returns (N, H, W) bool; no boxes give (0, H, W). Raises ImageError for the image, PromptError naming a bad
        box's number or for a detail outside 1..32, ModelError when the model fails.
        """
        plane = image
        if not isinstance(image, Plane):
            plane = Plane.from_array(image, rgb=rgb, channel_axis=channel_axis)
        choice = Contrast.parse(contrast)
        if channels is not None:
            choice = replace(choice, channels=tuple(channels))
        predictions = self.predict(plane, boxes, choice, field, detail)
        masks = [prediction.full(plane.shape) for prediction in predictions]
        return np.stack(masks) if masks else np.zeros((0, *plane.shape), dtype=bool)

    def predict(
        self,
        plane: Plane,
        boxes: npt.ArrayLike | Sequence[Box],
        contrast: str | Contrast = "auto",
        field: str | Field = "auto",
        detail: int = 1,
    ) -> list[Prediction]:
        """Like `segment`, but cropped masks with their predicted IoU. Nothing is encoded for no boxes."""
        prompts = [Prompt(box) for box in boxes_in_plane(boxes, plane.shape)]
        return self.predict_prompts(plane, prompts, contrast, field, detail)

    def predict_prompts(
        self,
        plane: Plane,
        prompts: Sequence[Prompt],
        contrast: str | Contrast = "auto",
        field: str | Field = "auto",
        detail: int = 1,
    ) -> list[Prediction]:
        """Like `predict`, for objects described by boxes, clicks or both.

        A box is decoded first, as `predict` does it; each click then corrects the mask before it, in the order of the
        prompt. Where there are clicks only, "auto" looks for the field that fits what is found. Raises PromptError for
        a prompt that says nothing or leaves the plane, and for clicks where the model has not learned them.
        """
        check_detail(detail)
        asked = [PromptInput(prompt, plane, (), field, detail) for prompt in prompts]
        return [answer.prediction for answer in self._answers(plane, asked, contrast)]

    def answer(
        self,
        plane: Plane,
        prompt: Prompt,
        contrast: str | Contrast = "auto",
        field: str | Field = "auto",
        detail: int = 1,
        masks_before: ClickHistory = (),
    ) -> Answer:
        """Answer one prompt, and tell the masks before its clicks.

        masks_before: for each click the mask before it, as far as a person painted it: `MaskBefore(painted=Patch(...))`
        where so, `MaskBefore()` elsewhere; those of an earlier answer spare decoding them again. See `predict_prompts`.
        """
        check_detail(detail)
        [found] = self._answers(plane, [PromptInput(prompt, plane, masks_before, field, detail)], contrast)
        return found

    def embed(
        self, plane: Plane, contrast: str | Contrast = "auto", field: str | Field = "whole"
    ) -> Embedding:
        """Embed a field of a plane, from the cache where it is there. field: "whole" or a Field."""
        region = (
            field if isinstance(field, Field) else field_of(field, Box.of_plane(plane.shape), plane.shape)
        )
        return embed(self.model, self.cache, FieldRequest(plane, Contrast.parse(contrast), region))

    def _answers(self, plane: Plane, asked: Sequence[PromptInput], contrast: str | Contrast) -> list[Answer]:
        checked = [replace(one, prompt=one.prompt.check(plane.shape)) for one in asked]
        if any(one.prompt.points for one in checked):
            check_learned(self.model)
        choice = Contrast.parse(contrast)
        window: Window | None = None

        def embedded(region: Field) -> Embedding:
            nonlocal window
            if window is None and region.kind == "grid":  # resolved once, not for each of many fields
                window = resolve_contrast(plane, choice)
            known = window if region.kind == "grid" else None
            return embed(self.model, self.cache, FieldRequest(plane, choice, region, window=known))

        return answer_prompts(self.model, checked, embedded)


def load_model(
    name_or_path: str | Path = "lite-medsam",
    device: str = "auto",
    *,
    cache: EmbeddingCache | Literal["default"] | None = "default",
    backend: str = "auto",
) -> Segmenter:
    """Load a model by name or checkpoint file, ready to segment.

    device: "auto", "cuda", "mps" or "cpu". backend: "auto" or an encoder backend's name. cache: "default"
    keeps embeddings on disk in the user's cache folder, None keeps none. Raises ModelError for an unknown
    name, CheckpointError or DownloadError when the weights cannot be had.
    """
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.model.local import build_model

    store = EmbeddingCache() if cache == "default" else cache
    return Segmenter(build_model(name_or_path, device, backend=backend), store)
