"""The verb `models` of the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_medsam.model.catalogue import ModelSpec
    from napari_medsam.model.decoder_file import DecoderInfo

Row = tuple[str, ...]
HEADING: Row = ("NAME", "INSTALLED", "SIZE", "LICENCE", "PROMPTS", "NOTE")


def list_models(arguments: argparse.Namespace) -> int:
    """Print the registry's models, and the user's decoders with what they were trained on and found worth."""
    del arguments
    from napari_medsam.errors import MedSAMError
    from napari_medsam.folders import decoders_folder, models_folder
    from napari_medsam.model.catalogue import MODELS
    from napari_medsam.model.library import own_decoders
    from napari_medsam.model.names import find_model

    rows = [HEADING, *(_row(spec, _note(spec)) for spec in MODELS.values())]
    for decoder in own_decoders():
        try:
            rows.append(_row(find_model(decoder.name), _worth(decoder.info)))
        except MedSAMError as error:
            rows.append((decoder.name, "no", "", "", "", str(error)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nDownloads are kept in {models_folder()}, your decoders in {decoders_folder()}.")
    print("Any local checkpoint or decoder file can be named instead.")
    return 0


def _row(spec: ModelSpec, note: str) -> Row:
    from napari_medsam.model.checkpoint import is_available

    size = spec.decoder.stat().st_size if spec.decoder is not None else spec.size
    return (
        spec.name,
        "yes" if is_available(spec) else "no",
        f"{size / 1e6:.0f} MB" if size else "?",
        spec.licence if spec.decoder is None else "yours",
        ", ".join(sorted(spec.prompts)),
        note,
    )


def _note(spec: ModelSpec) -> str:
    return spec.title if spec.origin == "built-in" else f"{spec.title}, downloaded on first use"


def _worth(info: DecoderInfo) -> str:
    """What a decoder is for, how much it learned from, and what its verdict was."""
    from napari_medsam.finetune.verdict_text import decision_of

    cases = len(info.cases.get("train", ()))
    detail = f", detail {info.detail}" if info.detail > 1 else ""
    notes = f" - {info.notes}" if info.notes else ""
    plural = "" if cases == 1 else "s"
    decision = decision_of(info.verdict).lower()
    return f"your decoder for {info.base}{detail}, trained on {cases} case{plural}, {decision}{notes}"
