"""Models and decoders by their names, ready to be judged side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from napari_medsam.finetune.verdict import Candidate
from napari_medsam.model.local import MedSAM, build_model, load_decoder
from napari_medsam.model.names import find_model


def candidates_of(
    names: Sequence[str], device: str = "auto", build: Callable[[str, str], MedSAM] = build_model
) -> dict[str, Candidate]:
    """Each model under its name; decoders of one model share its encoder.

    names: as `find_model` takes them. build: makes a model of its name and device. Raises ModelError.
    """
    bases: dict[str, MedSAM] = {}
    found = {}
    for name in names:
        spec = find_model(name)
        base = str(spec.path or spec.file_name)
        if base not in bases:
            bases[base] = build(spec.base or name, device)
        model = bases[base] if spec.decoder is None else load_decoder(bases[base], spec.decoder)
        found[name] = Candidate(name, model, spec.detail)
    return found
