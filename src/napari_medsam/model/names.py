"""A model by its name: one of the catalogue, one of the user's decoders, or a file on disk. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from napari_medsam.errors import CheckpointError, ModelError
from napari_medsam.model.catalogue import MODELS, ModelSpec
from napari_medsam.model.decoder_file import DecoderInfo, is_decoder, read_info
from napari_medsam.model.library import own_decoders

_SUFFIXES = {".pth", ".pt", ".ckpt", ".bin", ".safetensors"}


def model_names() -> tuple[str, ...]:
    """Names that `find_model` knows: the built-in default first, the user's own decoders last."""
    return (*MODELS, *(decoder.name for decoder in own_decoders()))


def find_model(name_or_path: str | Path) -> ModelSpec:
    """The spec of a model name, of one of the user's decoders, or of a checkpoint or decoder file on disk.

    A checkpoint file gets family and arch "auto"; they are settled when its weights are read. A decoder gets the
    spec of the model it was trained on, with its own name.
    Raises CheckpointError for a path that holds no file, ModelError for a name nobody knows.
    """
    if isinstance(name_or_path, str) and name_or_path in MODELS:
        return MODELS[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        if is_decoder(path):
            return _tuned(path, read_info(path))
        title = f"{path.name} (local file)"
        return ModelSpec(path.name, "auto", "auto", title, path.name, path=path, size=path.stat().st_size)
    own = {decoder.name: decoder for decoder in own_decoders()}
    if str(name_or_path) in own:
        return _tuned(own[str(name_or_path)].path, own[str(name_or_path)].info)
    choices = f"Choose one of {', '.join((*MODELS, *own))}, or the path of a checkpoint or decoder file."
    if path.suffix.lower() in _SUFFIXES or path.parent != Path("."):
        raise CheckpointError(f"There is no checkpoint file at {path}. {choices}")
    raise ModelError(f"Unknown model {str(name_or_path)!r}. {choices}")


def _tuned(path: Path, info: DecoderInfo) -> ModelSpec:
    base = find_model(info.base)
    if base.decoder is not None:
        raise CheckpointError(
            f"The decoder {path} names the decoder {info.base} as its model. Train it again."
        )
    return spec_with_decoder(base, path, info)


def spec_with_decoder(base: ModelSpec, path: Path, info: DecoderInfo) -> ModelSpec:
    """The spec of a model with the decoder in a file of the user's, and named after the file."""
    return replace(
        base,
        name=path.stem,
        title=f"{path.stem} (your decoder for {base.name})",
        decoder=path,
        base=info.base,
        detail=info.detail,
        prompts=frozenset(info.prompts),
    )
