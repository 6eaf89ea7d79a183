"""The model card of an interactive decoder: what it learned from, how, how well, and where it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_medsam.files import replacing
from napari_medsam_training.interactive.fields import Lesson
from napari_medsam_training.interactive.pictures import Source
from napari_medsam_training.interactive.teach import Recipe
from napari_medsam_training.interactive.validate import Figures

KNOBS = ("seed", "visits", "batch", "learning_rate", "warmup", "weight_decay", "clip", "dice", "cross_entropy", "iou",
         "correction", "keep_base", "jitter", "average", "habits")  # fmt: skip


def write_card(
    path: Path,
    sources: Sequence[Source],
    lessons: Sequence[Lesson],
    recipe: Recipe,
    before: Mapping[str, Figures],
    after: Mapping[str, Figures],
) -> None:
    """Write the card as Markdown, whole or not at all."""
    taught: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for lesson in lessons:
        (held if lesson.held else taught)[lesson.source] += 1
    rows = [
        f"| {source.name} | {source.modality} | {source.licence} | {_truth(source)} | {taught[source.name]} "
        f"| {held[source.name]} |"
        for source in sources
    ]
    knobs = ", ".join(f"{name} {getattr(recipe, name)}" for name in KNOBS)
    text = f"""# {path.stem}: a mask decoder for LiteMedSAM that understands clicks

LiteMedSAM as released knows boxes only: a click gives an empty mask, and a click after a box makes its mask worse. This
decoder has the same architecture and the same frozen encoder and prompt encoder; only the mask decoder was trained. It
answers a box, clicks on the object and beside it, both, and an earlier mask to be corrected.

- File: `{path.stem}.safetensors`, float16, for LiteMedSAM (Apache-2.0). The model `lite-medsam` uses it; the released
  decoder stays selectable as `lite-medsam-box`.
- Built by `training/interactive/build.py`; the recipe is described in `training/interactive/README.md`.

## Learned from

"truth" are masks drawn by people; "teacher" are masks that the released decoder gave to boxes drawn anywhere and was
sure of. Fields of one picture in ten were held out.

| source | modality | licence | objects | fields | held out |
|---|---|---|---|---|---|
{chr(10).join(rows)}

## Recipe

{knobs}.

## Figures on the fields held out

Mean DSC after a box, after corrective clicks at the largest error, and after clicks alone; the released decoder in
brackets. Pictures of the same sources were trained on: `benchmarks/clicks.py` measures other sets, which is what
counts. "teacher" sources compare with the released decoder's own masks and flatter it.

{_table(before, after)}

## Limits

- One mask for each prompt: a click on a nucleus in a cell may mean either. A second click or a box settles it.
- Thin, branching structures (vessels) are beyond it: retrain with Detail above 1.
- Trained on {len(sources)} sources of few patients and specimens each; modalities that are missing there (endoscopy,
  for one) were never seen in training.
- Not a medical device: masks are for research, and to be checked by a person.
"""
    with replacing(path) as stream:
        stream.write(text.encode())


def _truth(source: Source) -> str:
    return "teacher" if source.labels == "none" else "truth"


def _table(before: Mapping[str, Figures], after: Mapping[str, Figures]) -> str:
    if not after:
        return "None: of so few pictures none was held out."
    names = list(next(iter(after.values())))
    lines = [f"| source | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for source, figures in after.items():
        cells = [f"{figures[name]:.3f} ({before[source][name]:.3f})" for name in names]
        lines.append(f"| {source} | {' | '.join(cells)} |")
    return "\n".join(lines)
