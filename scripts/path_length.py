"""How far a newcomer has to read: the files and functions of this project that two walks enter.

    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/path_length.py --list --most 28 240 35 300

A box to its mask: the first box of the coins sample is added to the prompts of a real window, whose image is embedded
already, and the walk ends when its mask is painted and no sharper one is awaited. The model runs in this process, so
that what it does is counted too. What the journal writes meanwhile is not: it is no part of the walk, and when it is
done is a matter of chance. Cases to a decoder: a dataset of six small cases becomes a decoder that is judged, from the
request to the verdict in its file; the model is loaded and the fields are embedded already, by a run before.

Counted are code objects under src that are entered in any thread, each once: functions, methods, lambdas and
comprehensions, but no module and no class body. Python 3.12 inlines most comprehensions: compare counts of one version.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

SRC = Path(__file__).resolve().parents[1] / "src"
LEFT_OUT = "journal"  # in the path of a file that the walk is not followed into
WINDOW_SIZE = (1500, 920)
TIMEOUT_S = 600.0
FUNCTION = 1  # the flag (CO_OPTIMIZED) of a code object that is neither a module nor a class body


class Walk:
    """Notes what is entered while `recording`, in this thread and in those that begin later."""

    def __init__(self) -> None:
        self._on = False
        self._entered: set[CodeType] = set()
        sys.setprofile(self._profile)
        threading.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if self._on and event == "call" and frame.f_code not in self._entered and _is_ours(frame.f_code):
            caller: FrameType | None = frame
            while caller is not None:
                if (
                    _is_ours(caller.f_code)
                    and LEFT_OUT in Path(caller.f_code.co_filename).relative_to(SRC).as_posix()
                ):
                    return
                caller = caller.f_back
            self._entered.add(frame.f_code)

    @contextmanager
    def recording(self) -> Iterator[None]:
        self._entered.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def by_file(self) -> Counter[str]:
        """How many functions were entered, by their file under src."""
        return Counter(Path(code.co_filename).relative_to(SRC).as_posix() for code in self._entered)


def _is_ours(code: CodeType) -> bool:
    return bool(code.co_flags & FUNCTION) and code.co_filename.startswith(str(SRC))


def box_to_mask(walk: Walk, folder: Path) -> Counter[str]:
    """Add a box to the prompts in a window."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.model.holder import load_here
    from napari_medsam.samples import find_sample, sample_layers
    from napari_medsam.ui.desk.desk import Desk
    from napari_medsam.ui.launch import add_dock

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit("The window did not answer in time.")
            QApplication.processEvents()
            time.sleep(0.005)

    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW_SIZE)
    desk = Desk(viewer, load=load_here, cache=EmbeddingCache(folder / "embeddings"))
    dock = add_dock(desk)
    session = desk.controller.session
    painted: list[int] = []
    progress: list[Any] = []
    session.progress.connect(progress.append)
    desk.controller.painted.connect(painted.append)
    pixels, options, _ = sample_layers("coins")[0]
    viewer.add_image(pixels, **options)
    wait(lambda: bool(progress) and progress[-1].done == progress[-1].total)
    dock.tools.draw.click()
    work = desk.controller.work
    r0, c0, r1, c1 = (edge - 0.5 for edge in find_sample("coins").boxes[0])
    with walk.recording():
        work.prompts.layer.add_rectangles([[r0, c0], [r0, c1], [r1, c1], [r1, c0]])
        wait(lambda: bool(painted) and not session.awaited(work.document))
    dock.close_session()
    viewer.close()
    QApplication.processEvents()
    return walk.by_file()


def cases_to_decoder(walk: Walk, folder: Path) -> Counter[str]:
    """Train and judge a decoder, one epoch on discs."""
    from napari_medsam.curation.case import Case, CaseObject, Provenance
    from napari_medsam.curation.dataset import CuratedDataset
    from napari_medsam.embedding.cache import EmbeddingCache
    from napari_medsam.finetune.config import FinetuneConfig
    from napari_medsam.finetune.request import TrainingRequest
    from napari_medsam.finetune.train import train
    from napari_medsam.model.local import build_model

    rows, cols = np.mgrid[:64, :64]
    dataset = CuratedDataset(folder / "cases", create=True)
    for number in range(6):
        disc = np.hypot(rows - 29 - number, cols - 32) < 17
        imgs = np.repeat(np.where(disc, 170, 90).astype(np.uint8)[..., None], 3, axis=2)
        item, source = CaseObject(1, "disc", 1), Provenance(layer=f"disc {number}")
        dataset.append(Case(imgs, disc.astype(np.uint8), (1.0, 1.0), (item,), source))
    request = TrainingRequest(dataset.path, "discs", config=FinetuneConfig(epochs=1), device="cpu")
    model, events = build_model("lite-medsam", device="cpu"), []
    cache = EmbeddingCache(folder / "embeddings")

    def run(name: str) -> None:
        train(request, folder / name, events.append, cache=cache, build=lambda *_: model)

    run("before")
    with walk.recording():
        run("recorded")
    return walk.by_file()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the files, and how many functions of each")
    words = ("FILES", "FUNCTIONS", "FILES", "FUNCTIONS")
    parser.add_argument(
        "--most", type=int, nargs=4, metavar=words, help="of the first walk and of the second"
    )
    options = parser.parse_args()
    counts: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for variable in ("CACHE", "JOURNAL", "DECODERS", "RUNS"):
            os.environ[f"NAPARI_MEDSAM_{variable}"] = str(folder / variable.lower())
        walk = Walk()
        decoder = cases_to_decoder(
            walk, folder
        )  # first: a window that is gone leaves objects to a later collection
        for title, found in (
            ("a box to its mask", box_to_mask(walk, folder)),
            ("cases to a decoder", decoder),
        ):
            counts += [len(found), found.total()]
            print(f"{title}: {len(found)} files, {found.total()} functions")
            for file, functions in sorted(found.items()) if options.list else ():
                print(f"  {functions:4d}  {file}")
    return int(any(count > most for count, most in zip(counts, options.most or counts, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
