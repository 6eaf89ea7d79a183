"""Build the interactive decoder that ships with the package, from images to the file and its model card.

    python training/interactive/build.py --images DIR [DIR ...] [--work DIR] [--output FILE] [--visits N] [--seed S]

The sources are those of `lessons.json`, each looked for as DIR/NAME/images. Embedded lessons stay in --work, so a
second run only teaches. Same images, seed and machine give the same file; other machines the same figures within noise.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from napari_medsam.model.catalogue import INTERACTIVE
from napari_medsam.model.decoder_file import CurvePoint, DecoderInfo, write_decoder
from napari_medsam.model.local import MedSAM, build_model
from napari_medsam.model.networks.decoder import SamDecoder
from napari_medsam.model.networks.weights import build_decoder
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam_training.command import parser_of
from napari_medsam_training.interactive.card import write_card
from napari_medsam_training.interactive.fields import Lesson, make_lessons, read_lessons
from napari_medsam_training.interactive.pictures import Source, read_sources
from napari_medsam_training.interactive.teach import Recipe, Teacher
from napari_medsam_training.interactive.validate import validate

RECIPES = Path("training/interactive")  # of a checkout, seen from its root
BASE = "lite-medsam-box"
TELL_EVERY = 400  # visits


def main(argv: list[str] | None = None, recipes: Path = RECIPES) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--images", nargs="+", required=True, type=Path, metavar="DIR")
    parser.add_argument("--work", type=Path, default=Path("out/interactive"))
    parser.add_argument("--output", type=Path, default=INTERACTIVE)
    parser.add_argument("--table", type=Path, default=recipes / "lessons.json")
    parser.add_argument("--visits", type=int, default=Recipe.visits)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args(argv)
    keep_freed_memory()
    recipe = Recipe(visits=options.visits, seed=options.seed)
    sources = read_sources(options.table, options.images)
    model = build_model(BASE, "cpu")
    for source in sources:
        count = make_lessons(source, model, options.work / source.name, recipe.seed)
        print(f"{source.name}: {count} fields", flush=True)
    lessons = [lesson for source in sources for lesson in read_lessons(options.work / source.name)]
    released = model.decoder_state()
    before = validate(_decoder(released, model), lessons, model.frame)
    curve = _taught(teacher := Teacher(released, lessons, model.frame, recipe))
    state = _stored(teacher.average.state_dict())
    after = validate(_decoder(state, model), lessons, model.frame)
    _write(options.output, model, state, recipe, sources, lessons, curve)
    write_card(options.output.with_suffix(".md"), sources, lessons, recipe, before, after)
    print(f"{options.output}, and its card beside it")
    return 0


def _taught(teacher: Teacher) -> list[CurvePoint]:
    began, curve = time.monotonic(), []
    for now in teacher.teach():
        if now.visits % TELL_EVERY == 0:
            seconds = time.monotonic() - began
            curve.append(CurvePoint(now.visits, now.loss, seconds=seconds))
            print(f"{now.visits} visits, loss {now.loss:.4f}, {seconds:.0f} s", flush=True)
    return curve


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as float16 holds them; what is judged is what ships."""
    return {
        name: value.half() if name.startswith("mask_decoder.") else value for name, value in state.items()
    }


def _decoder(state: dict[str, Tensor], model: MedSAM) -> SamDecoder:
    return build_decoder(
        {name: value.float() for name, value in state.items()}, model.frame.size, "the decoder"
    )


def _write(
    path: Path,
    model: MedSAM,
    state: dict[str, Tensor],
    recipe: Recipe,
    sources: list[Source],
    lessons: list[Lesson],
    curve: list[CurvePoint],
) -> None:
    listed = {source.name: source.licence for source in sources}
    info = DecoderInfo(
        name=path.stem,
        base=BASE,
        encoder_hash=model.encoder_hash,
        decoder_hash=model.with_decoder({n: v.float() for n, v in state.items()}).decoder_hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=", ".join(f"{name} ({licence})" for name, licence in listed.items()),
        dataset_id=hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest(),
        cases={"train": tuple(listed)},
        classes=tuple(sorted({source.modality for source in sources})),
        config=recipe.to_json(),
        curve=tuple(curve),
        notes=f"Taught clicks on {sum(not lesson.held for lesson in lessons)} fields; see {path.stem}.md.",
        prompts=("box", "point"),
    )
    write_decoder(path, state, info)


if __name__ == "__main__":
    sys.exit(main())
