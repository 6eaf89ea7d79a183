"""How well a decoder answers boxes and clicks on lessons that were kept out of training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from napari_medsam.evaluate.metrics import dice_coefficient
from napari_medsam.finetune.simulated_clicks import next_click
from napari_medsam.finetune.simulated_user import click_arrays
from napari_medsam.geometry import bbox_of
from napari_medsam.image.field import Frame
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.runtime.threads import map_single_threaded
from napari_medsam.segment.correction import click_step
from napari_medsam_training.interactive.fields import Lesson

CLICKS = 3
OBJECTS = 1  # of a lesson, the largest
LARGER = 0.025  # a box is so much larger than its object on each side

Figures = dict[str, float]


def validate(decoder: SamDecoder, lessons: Sequence[Lesson], frame: Frame) -> dict[str, Figures]:
    """Mean DSC by source and prompt on held-out lessons: "box", "box+1" to "box+3", "1" to "3" clicks; and "IoU error",
    the mean absolute error of the predicted IoU over all answers."""
    todo = [
        (lesson, n) for lesson in lessons if lesson.held for n in range(min(OBJECTS, len(lesson.objects)))
    ]
    scored = map_single_threaded(partial(_score, decoder.eval(), frame), todo)
    table: dict[str, Figures] = {}
    for source in sorted({lesson.source for lesson, _ in todo}):
        rows = [score for score, (lesson, _) in zip(scored, todo, strict=True) if lesson.source == source]
        table[source] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return table


def _score(decoder: SamDecoder, frame: Frame, what: tuple[Lesson, int]) -> Figures:
    lesson, number = what
    wanted = lesson.objects[number] > 127
    bbox = bbox_of(wanted)
    assert bbox is not None
    sides = np.array([bbox[2] - bbox[0], bbox[3] - bbox[1]] * 2)
    grown = np.array(bbox) + np.array([-1, -1, 1, 1]) * LARGER * sides
    box = np.clip(grown, 0, [*wanted.shape, *wanted.shape]).astype(np.float32)
    scores: Figures = {}
    errors: list[float] = []
    with torch.inference_mode():
        image = decoder.image_side(torch.from_numpy(lesson.features.astype(np.float32)))
        for start, names in (
            (box, ["box", *(f"box+{n}" for n in range(1, CLICKS + 1))]),
            (None, [str(n) for n in range(1, CLICKS + 1)]),
        ):
            clicks, found = [], np.zeros_like(wanted)
            for name in names:
                click = None if name == "box" else next_click(wanted, found)
                if click is not None:
                    clicks.append(click)
                step = click_step(FramePrompt(start, *click_arrays(clicks, frame)), found, frame)
                logits, iou = decoder.decode_prompt(image, *step.prompt.tensors("cpu"))
                found = step.after((logits[: wanted.shape[0], : wanted.shape[1]] > 0).numpy())
                scores[name] = dice_coefficient(found, wanted)
                errors.append(abs(float(iou) - _iou(found, wanted)))
    return {**scores, "IoU error": float(np.mean(errors))}


def _iou(found: np.ndarray, wanted: np.ndarray) -> float:
    return int(np.count_nonzero(found & wanted)) / max(int(np.count_nonzero(found | wanted)), 1)
