"""Boxes on an embedded field -> masks in the plane, and the public API on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box
from napari_medsam.image.contrast import Contrast, resolve_contrast
from napari_medsam.image.field import Field, whole_field
from napari_medsam.image.plane import Plane
from napari_medsam.segment.clicks import answer, check_learned, lone_click
from napari_medsam.segment.detail import Blend, check_detail, detail_fields, fill
from napari_medsam.segment.fields import FieldPolicy, centred_field
from napari_medsam.segment.logits import mask_from_logits
from napari_medsam.segment.prediction import Prediction as Prediction
from napari_medsam.segment.prompt import Point, Prompt, boxes_in_plane

if TYPE_CHECKING:
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.model.api import Model
    from napari_medsam.model.local import MedSAM


DEFAULT_POLICY = FieldPolicy()


def predict(model: Model, embedding: Embedding, boxes: Sequence[Box]) -> list[Prediction]:
    """Decode one mask for each box on an embedded field.

    boxes: inside the embedding's plane, in its pixels. No boxes give an empty list. Cost grows with the boxes
    and the size of their masks, not with the plane. Raises ModelError when the decoder fails.
    """
    if not boxes:
        return []
    field, frame = embedding.field, model.frame
    prompts = field.to_frame(np.stack([box.array() for box in boxes]), frame)
    decoded = model.decode(embedding.features, prompts, key=embedding.key)
    predictions = []
    for box, logits, iou in zip(boxes, decoded.logits, decoded.iou, strict=True):
        row, col, mask = mask_from_logits(logits, field, frame)
        if mask.size == 0:
            row, col = int(box.r0), int(box.c0)
        predictions.append(Prediction(box, row, col, mask, float(iou), embedding.key, field))
    return predictions


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
        check_detail(detail)
        prompts = boxes_in_plane(boxes, plane.shape)
        regions = [field_of(field, box, plane.shape) for box in prompts]
        laid_out = [detail_fields(box, plane.shape, detail, DEFAULT_POLICY) for box in prompts]
        blends = {n: Blend(prompts[n], fields, plane.shape) for n, fields in enumerate(laid_out) if fields}
        answers = self._predict_in_detail(plane, contrast, blends)
        # Boxes that share a field share its embedding, whatever their order.
        undivided = {number: regions[number] for number in range(len(prompts)) if number not in blends}
        for region in dict.fromkeys(undivided.values()):
            members = [number for number, own in undivided.items() if own == region]
            embedding = self.embed(plane, contrast, region)
            found = predict(self.model, embedding, [prompts[number] for number in members])
            answers.update(zip(members, found, strict=True))
        return [answers[number] for number in range(len(prompts))]

    def predict_prompts(
        self,
        plane: Plane,
        prompts: Sequence[Prompt],
        contrast: str | Contrast = "auto",
        field: str | Field = "auto",
        detail: int = 1,
    ) -> list[Prediction]:
        """Like `predict`, for objects described by boxes, clicks or both.

        A box is decoded first, as `predict` does it, and its clicks correct that mask. Where there are clicks only,
        "auto" looks for the field that fits what is found (`lone_click`). Raises PromptError for a prompt that says
        nothing or leaves the plane, and for clicks where the model has not learned them.
        """
        checked = [prompt.check(plane.shape) for prompt in prompts]
        if any(prompt.points for prompt in checked):
            check_learned(self.model)
        boxed = [prompt.box for prompt in checked if prompt.box is not None]
        first = iter(self.predict(plane, boxed, contrast, field, detail))
        return [
            self.refine(plane, prompt, contrast, field, None if prompt.box is None else next(first))
            for prompt in checked
        ]

    def refine(
        self,
        plane: Plane,
        prompt: Prompt,
        contrast: str | Contrast = "auto",
        field: str | Field = "auto",
        earlier: Prediction | None = None,
    ) -> Prediction:
        """Correct the mask of one object by the clicks of its prompt, one after the other; without clicks it stays.

        earlier: the object's mask before the clicks; None has it predicted from the box, or from the first plus click.
        For the rest see `predict_prompts`.
        """
        clicks = sorted(
            prompt.points, key=lambda point: not point.positive
        )  # the object first, then what it is not
        said: tuple[Point, ...] = ()
        if earlier is None and prompt.box is not None:
            [earlier] = self.predict(plane, [prompt.box], contrast, field)
        elif earlier is None:
            said = (clicks.pop(0),)
            earlier = self._first_click(plane, Prompt(None, said), contrast, field)
        region = earlier.field if prompt.box is None else field_of(field, prompt.box, plane.shape)
        for click in clicks:
            said = (*said, click)
            embedding = self.embed(plane, contrast, region)
            earlier = answer(self.model, embedding, Prompt(prompt.box, said), earlier.patch)
        return earlier

    def _first_click(
        self, plane: Plane, prompt: Prompt, contrast: str | Contrast, field: str | Field
    ) -> Prediction:
        def look(region: Field) -> Prediction:
            return answer(self.model, self.embed(plane, contrast, region), prompt)

        if field == "auto":
            return lone_click(prompt, plane.shape, DEFAULT_POLICY, look)
        return look(_as_field(field, plane.shape))

    def _predict_in_detail(
        self, plane: Plane, contrast: str | Contrast, blends: Mapping[int, Blend]
    ) -> dict[int, Prediction]:
        """Predictions by the number of their box."""
        if not blends:
            return {}
        choice = Contrast.parse(contrast)
        window = resolve_contrast(plane, choice)  # once, not for each of many fields

        def embedded(field: Field) -> Embedding:
            return embed(self.model, self.cache, FieldRequest(plane, choice, field, window=window))

        for _ in fill(self.model, embedded, blends.values()):
            pass
        return {number: blend.prediction() for number, blend in blends.items()}

    def embed(
        self, plane: Plane, contrast: str | Contrast = "auto", field: str | Field = "whole"
    ) -> Embedding:
        """Embed a field of a plane, from the cache where it is there."""
        region = _as_field(field, plane.shape)
        request = FieldRequest(plane=plane, contrast=Contrast.parse(contrast), field=region)
        embedding = embed(self.model, self.cache, request)
        assert embedding is not None  # only a lookup without encoding can come back empty
        return embedding


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


def field_of(
    field: str | Field, box: Box, shape: tuple[int, int], policy: FieldPolicy = DEFAULT_POLICY
) -> Field:
    """The field that answers a box: "auto" chooses by its size, "whole" is the whole plane of `shape`.

    Raises PromptError for another word.
    """
    if isinstance(field, Field):
        return field
    if field == "auto":
        return centred_field(box, shape, policy)
    return _as_field(field, shape)


def _as_field(field: str | Field, shape: tuple[int, int]) -> Field:
    if isinstance(field, Field):
        return field
    if field != "whole":
        raise PromptError(f"Unknown field {field!r}. Choose 'auto', 'whole' or pass a Field.")
    return whole_field(shape)
