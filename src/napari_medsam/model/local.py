"""A model ready to use: prepare and encode a field once, decode boxes as often as wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_medsam.bounded import BoundedMemory
from napari_medsam.errors import ModelError
from napari_medsam.folders import models_folder
from napari_medsam.image.field import Frame
from napari_medsam.model.api import DecodedMasks, EncodedFeatures
from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.checkpoint import Progress, checkpoint_path, load_state
from napari_medsam.model.decoder_file import read_decoder, read_info
from napari_medsam.model.families.registry import FAMILIES, settle_family
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.model.names import find_model, spec_with_decoder
from napari_medsam.model.networks.weights import (
    build_decoder,
    build_encoder,
    decoder_state,
    encoder_state,
    state_hash,
)
from napari_medsam.model.runtime.device import choose_device
from napari_medsam.model.runtime.encoders import Encoder, build_encoder_backend, choose_backend
from napari_medsam.model.runtime.host import EncoderHost
from napari_medsam.model.runtime.preload import preload_torch
from napari_medsam.model.runtime.threads import In, Out, map_single_threaded

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medsam.model.networks.decoder import ImageSide, SamDecoder

Notice = Callable[[str], None]
# An image side takes about 14 MiB; boxes in a view are answered from about so many embeddings.
_KEPT_IMAGE_SIDES = 12

REACH = 0.5
"""A box's mask is looked for so far beyond it, in longer sides of the box, and at least..."""
LEAST_REACH = 1 / 16
"""...so far, in sides of the frame."""


class MedSAM:
    """An encoder, shared between all decoders made for it, and one decoder. Thread-safe.

    encode and decode may run at the same time in two threads. `encoder_hash` and `decoder_hash` are the
    sha256 of the loaded weights; `precision` names the backend and dtype of features made from now on.
    Errors of torch leave as ModelError, never as RuntimeError.
    """

    def __init__(
        self, spec: ModelSpec, host: EncoderHost, decoder: SamDecoder, hashes: tuple[str, str]
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self._family = FAMILIES[spec.family]
        self.frame: Frame = self._family.frame(spec.input_size)
        self.prompts = spec.prompts
        self.encoder_hash, self.decoder_hash = hashes
        self._host = host
        self._decoder = decoder
        self._decoder_device = "cpu"
        self._decode_lock = Lock()
        self._image_sides: BoundedMemory[str, ImageSide] = BoundedMemory(_KEPT_IMAGE_SIDES)

    @property
    def precision(self) -> str:
        """Backend and dtype of the encoder; changes when a GPU runs out of memory and the CPU takes over."""
        return self._host.precision

    @property
    def device(self) -> str:
        """Where encoding and decoding run now."""
        return self._host.device

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(h', w', 3) uint8 as read_field gives it for `frame` to float32 (3, S, S), C-contiguous.

        Raises ImageError when the pixels do not fit the frame.
        """
        return self._family.prepare(self.frame.size, pixels)

    def encode(self, prepared: npt.NDArray[np.float32]) -> EncodedFeatures:
        """Features of one prepared field. One at a time; a second caller waits.

        Raises ModelError when the encoder fails or memory runs out on the CPU too.
        """
        expected = (3, self.frame.size, self.frame.size)
        if prepared.shape != expected or prepared.dtype != np.float32:
            raise ModelError(
                f"{self.name} encodes float32 {expected}, not {prepared.dtype} {prepared.shape}: "
                "make it with prepare()."
            )
        return EncodedFeatures(*self._host.encode(prepared))

    def decode(
        self, features: npt.NDArray[np.float16], boxes: npt.NDArray[np.float32], *, key: str | None = None
    ) -> DecodedMasks:
        """Masks of boxes (n, 4) as (r0, c0, r1, c1) in frame pixels; n = 0 gives empty arrays.

        Logits are computed around each box, `REACH` of its longer side beyond it; further away they are `decoder.FAR`.
        key: the embedding's key. With it, the part that depends on the image alone is kept for the few
        embeddings last used. Raises ModelError for features or boxes of a wrong shape, or when torch fails.
        """
        boxes = np.asarray(boxes, dtype=np.float32)
        if features.ndim != 3 or boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ModelError(
                f"decode takes features (C, h, w) and boxes (n, 4), not {features.shape}, {boxes.shape}."
            )
        if not len(boxes):
            side = 4 * features.shape[1]
            return DecodedMasks(np.zeros((0, side, side), np.float32), np.zeros(0, np.float32))
        return self._decode(features, [FramePrompt(box) for box in boxes], key)

    def decode_prompt(
        self, features: npt.NDArray[np.float16], prompt: FramePrompt, *, key: str | None = None
    ) -> DecodedMasks:
        """The mask of one object from clicks, a box or an earlier mask: n = 1. See `decode` for the rest.

        A decoder that has learned boxes only (`prompts`) gives poor masks for anything else.
        """
        if features.ndim != 3:
            raise ModelError(f"decode_prompt takes features (C, h, w), not {features.shape}.")
        side = 4 * features.shape[1]
        if prompt.mask is not None and prompt.mask.shape != (side, side):
            raise ModelError(f"An earlier mask has ({side}, {side}) logits here, not {prompt.mask.shape}.")
        return self._decode(features, [prompt], key)

    def warm(self, features: npt.NDArray[np.float16], *, key: str) -> None:
        """Compute what `decode` needs of an embedding whatever the box, so that its first box costs no more than the
        next. A failure is left for `decode` to meet."""
        with self._decode_lock, suppress(RuntimeError):
            self._follow_device()
            self._image_side(features, key)

    def decoder_state(self) -> dict[str, Tensor]:
        """Copies of the decoder's weights on the CPU, with the checkpoint's names."""
        with self._decode_lock:
            return {name: value.detach().cpu().clone() for name, value in self._decoder.state_dict().items()}

    def with_decoder(self, state: Mapping[str, Tensor], source: str = "the new decoder") -> MedSAM:
        """The same encoder with another decoder: encoder_hash and precision stay, decoder_hash changes.

        Raises CheckpointError naming `source` when the weights do not fit.
        """
        # A trainer goes on with its own.
        own = {name: value.detach().cpu().clone() for name, value in state.items()}
        decoder = build_decoder(own, self.frame.size, source)
        return MedSAM(self.spec, self._host, decoder, (self.encoder_hash, state_hash(decoder_state(own))))

    def _decode(
        self, features: npt.NDArray[np.float16], prompts: list[FramePrompt], key: str | None
    ) -> DecodedMasks:
        """A mask for each prompt; on the CPU if the GPU runs out of memory."""
        import torch

        def decode() -> DecodedMasks:
            self._follow_device()
            image = self._image_side(features, key)
            decoded = self._each(partial(self._decode_one, image), prompts)
            logits, iou = (torch.stack(parts).cpu().numpy() for parts in zip(*decoded, strict=True))
            return DecodedMasks(logits, iou)

        with self._decode_lock:
            return self._host.run(decode, "decoding")

    def _decode_one(self, image: ImageSide, prompt: FramePrompt) -> tuple[Tensor, Tensor]:
        within = _wanted(prompt, self.frame.size)
        part = None if within is None else self._decoder.part_within(image.grid, within)
        logits, iou = self._decoder.decode_prompt(image, *prompt.tensors(self._decoder_device), part)
        return logits, iou

    def _each(self, work: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
        """work of each item, without gradients; on a CPU each on one thread, side by side."""
        import torch

        def without_gradients(item: In) -> Out:
            with torch.inference_mode():  # a setting of the thread, so each worker enters it
                return work(item)

        if self._decoder_device == "cpu":
            return map_single_threaded(without_gradients, items)
        return [without_gradients(item) for item in items]

    def _follow_device(self) -> None:
        if self._decoder_device != self._host.device:
            self._image_sides.clear()
            self._decoder_device = self._host.device
            self._decoder = self._decoder.to(self._decoder_device)

    def _image_side(self, features: npt.NDArray[np.float16], key: str | None) -> ImageSide:
        import torch

        image = None if key is None else self._image_sides.get(key)
        if image is None:
            tensor = torch.from_numpy(features.astype(np.float32)).to(self._decoder_device)
            image = self._each(self._decoder.image_side, [tensor])[0]
            if key is not None:
                self._image_sides.put(key, image)
        return image


def _reach(box: npt.NDArray[np.float32], size: int) -> tuple[float, float, float, float]:
    """Bounds of where the mask of a box in a frame of `size` pixels a side is looked for."""
    if not np.isfinite(box).all():
        return 0, 0, size, size
    r0, c0, r1, c1 = (float(edge) for edge in box)
    room = max(REACH * max(r1 - r0, c1 - c0), LEAST_REACH * size)
    return r0 - room, c0 - room, r1 + room, c1 + room


def _wanted(prompt: FramePrompt, size: int) -> tuple[float, float, float, float] | None:
    """Bounds of where the mask of a prompt is looked for: where the prompt says, else around its box and clicks; None
    for everywhere, as nothing says how large the object of a lone click is."""
    if prompt.within is not None or prompt.box is None:
        return prompt.within
    corners = np.concatenate([prompt.box.reshape(2, 2), prompt.points])
    return _reach(np.concatenate([corners.min(axis=0), corners.max(axis=0)]), size)


def build_model(
    name_or_path: str | Path,
    device: str = "auto",
    *,
    backend: str = "auto",
    on_notice: Notice | None = None,
    progress: Progress | None = None,
) -> MedSAM:
    """Load a model by name or checkpoint path; downloads and checks the checkpoint when needed.

    device: auto, cuda, mps or cpu. backend: auto (OpenVINO on a CPU where installed), torch or openvino;
    the encoder is compiled when it is first used, the choice stands from now on. on_notice receives what a
    user should know (a fallback to the CPU or from OpenVINO to torch); progress(done, total) the download in bytes.
    Raises ModelError, CheckpointError or DownloadError, each with the next step.
    """
    spec = find_model(name_or_path)
    path = checkpoint_path(spec, progress=progress)
    preload_torch()
    device = choose_device(device)
    chosen = choose_backend(backend, device)
    state = load_state(path)
    spec = settle_family(spec, state)
    source = str(spec.path or spec.file_name)
    inside, outside = encoder_state(state), decoder_state(state)
    hashes = state_hash(inside), state_hash(outside)
    tuned = spec.decoder or spec.shipped
    if tuned is not None:
        outside = read_decoder(tuned, hashes[0], outside)
        hashes = hashes[0], state_hash(outside)

    def make(on_device: str, with_backend: str) -> Encoder:
        return build_encoder_backend(
            lambda: build_encoder(partial(FAMILIES[spec.family].network, spec.arch), inside, source),
            spec.input_size,
            on_device,
            with_backend,
            hashes[0],
            models_folder() / "compiled",
        )

    host = EncoderHost(make, device, chosen, spec.name, on_notice or (lambda _: None))
    decoder = build_decoder(outside, spec.input_size, source)
    return MedSAM(spec, host, decoder, hashes)


def load_decoder(model: MedSAM, path: Path) -> MedSAM:
    """The same model, its encoder shared, with the decoder in a file of `model.decoder_file`, and named after it.

    Raises CheckpointError when the file was trained on another encoder, or is damaged.
    """
    tuned = model.with_decoder(read_decoder(path, model.encoder_hash, model.decoder_state()), str(path))
    tuned.spec = spec_with_decoder(model.spec, path, read_info(path))
    tuned.name, tuned.prompts = tuned.spec.name, tuned.spec.prompts
    return tuned
