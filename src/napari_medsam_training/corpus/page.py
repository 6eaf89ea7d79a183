"""The report of a dataset's curation: one HTML file that needs no other."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from napari_medsam.curation.split import ROLES
from napari_medsam.files import replacing
from napari_medsam_training.corpus.finish import Tally
from napari_medsam_training.corpus.plan import FOLDER
from napari_medsam_training.corpus.thumbnails import sheet
from napari_medsam_training.pages import rendered

_LISTED = 2000  # lines of files left out on the page; the table beside it has them all


def write_page(dataset: Path, tallies: Sequence[Tally]) -> Path:
    """Write curation/report.html and give its path: counts, sides, thumbnails, and every file left out and why."""
    kinds: Counter[str] = Counter()
    for tally in tallies:
        kinds.update(tally.left)
    with (dataset / FOLDER / "left_out.csv").open(newline="", encoding="utf-8") as file:
        left = list(islice(csv.reader(file), 1, _LISTED + 1))
    page = rendered(
        "curation.html.j2",
        {},
        name=dataset.resolve().name,
        tallies=tallies,
        most=max((tally.planes for tally in tallies), default=0) or 1,
        roles=ROLES,
        empty=[f"{tally.name}: {side}" for tally in tallies for side in ROLES if not tally.sides[side]],
        pictures={tally.name: _picture(dataset, tally) for tally in tallies if tally.shown},
        kinds=kinds.most_common(),
        left=left,
        more=kinds.total() - len(left),
    )
    path = dataset / FOLDER / "report.html"
    with replacing(path) as stream:
        stream.write(page.encode())
    return path


def _picture(dataset: Path, tally: Tally) -> str:
    """Write a run's thumbnails, and give them as a small JPEG in base64."""
    picture = sheet(dataset, tally.shown)
    with replacing(dataset / FOLDER / tally.name / "thumbnails.png") as stream:
        picture.save(stream, "PNG")
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=88)
    return base64.b64encode(small.getvalue()).decode()
