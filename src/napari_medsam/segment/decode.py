"""Boxes on one embedded field -> their masks in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_medsam.geometry import Box
from napari_medsam.segment.logits import mask_from_logits
from napari_medsam.segment.prediction import Prediction, Step
from napari_medsam.segment.prompt import Prompt

if TYPE_CHECKING:
    from napari_medsam.embedding.embed import Embedding
    from napari_medsam.model.api import Model


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
            row, col = box.corner
        step = Step(Prompt(box), (field,), embedding.key)
        predictions.append(Prediction(box, row, col, mask, float(iou), embedding.key, field, step))
    return predictions
