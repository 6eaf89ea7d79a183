"""What the rooms behind `model` need of a model; the one in this process and the one in another both offer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_medsam.image.field import Frame
    from napari_medsam.model.frame_prompt import FramePrompt


class EncodedFeatures(Protocol):
    """Features (256, 64, 64) float16, and the precision really used."""

    @property
    def features(self) -> npt.NDArray[Any]: ...
    @property
    def precision(self) -> str: ...


class DecodedMasks(Protocol):
    """Logits (n, L, L) float32 over the whole frame, and predicted IoU (n,) float32."""

    @property
    def logits(self) -> npt.NDArray[np.float32]: ...
    @property
    def iou(self) -> npt.NDArray[np.float32]: ...


class Model(Protocol):
    """See `napari_medsam.model.local.MedSAM` for what each of these means."""

    @property
    def name(self) -> str: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def encoder_hash(self) -> str: ...
    @property
    def decoder_hash(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def prompts(self) -> frozenset[str]: ...
    def prepare(self, pixels: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]: ...
    def encode(self, prepared: npt.NDArray[np.float32], /) -> EncodedFeatures: ...
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
