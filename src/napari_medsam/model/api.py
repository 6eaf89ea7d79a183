"""What the rooms behind `model` need of a model; the one in this process and the one in another both offer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_medsam.image.field import Frame
    from napari_medsam.model.frame_prompt import FramePrompt


@dataclass(frozen=True, eq=False)
class EncodedFeatures:
    """Features float16 (256, 64, 64) of one field, and the precision they were really computed in."""

    features: npt.NDArray[np.float16]
    precision: str


@dataclass(frozen=True, eq=False)
class DecodedMasks:
    """One mask a prompt: logits float32 (n, L, L) over the whole frame (mask where > 0), predicted IoU float32 (n,)."""

    logits: npt.NDArray[np.float32]
    iou: npt.NDArray[np.float32]


class EncoderModel(Protocol):
    """The part of a model that embedding needs."""

    @property
    def name(self) -> str: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def encoder_hash(self) -> str: ...
    @property
    def precision(self) -> str: ...
    def prepare(self, pixels: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]: ...
    def encode(self, prepared: npt.NDArray[np.float32], /) -> EncodedFeatures: ...


class Model(EncoderModel, Protocol):
    """See `napari_medsam.model.local.MedSAM` for what each of these means."""

    @property
    def decoder_hash(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def prompts(self) -> frozenset[str]: ...
    def decode(
        self, features: npt.NDArray[np.float16], boxes: npt.NDArray[np.float32], /, *, key: str | None = None
    ) -> DecodedMasks: ...
    def decode_prompt(
        self, features: npt.NDArray[np.float16], prompt: FramePrompt, /, *, key: str | None = None
    ) -> DecodedMasks: ...
    def warm(self, features: npt.NDArray[np.float16], /, *, key: str) -> None: ...


def knows_clicks(model: Model | None) -> bool:
    """Whether a model's decoder has learned clicks; not where there is none yet."""
    return model is not None and "point" in model.prompts
