"""The same prompt, the same mask: random boxes and clicks in the real window, then in Python and on the command line.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/same_mask.py [--json OUT] [--prompts N] [--seed N]

Each prompt is drawn with the mouse on the `coins` sample, at a zoom of its own: a box or a plus click, then up to four
clicks, plus or minus, some before the mask of the one before is there. What the window's document then holds as the
prompt goes to `Segmenter.answer` without a cache, and to `napari-medsam segment` with the user's (its model is loaded
once for all). DSC between each of them and the mask that the window holds in the end; 1 where both are empty.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
from typing import Any

import numpy as np
from lib.desk import drag_box, open_desk, wait_seconds, wait_until
from lib.record import RESULTS, Figure, options_of, publish

Place = tuple[float, float]


def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    from napari_medsam.samples import read_sample

    with open_desk() as (viewer, dock):
        viewer.add_image(read_sample("coins"), name="coins")
        wait_until(lambda: dock.controller.session.model is not None, 300)
        found = [drawn(viewer, dock, chance) for _ in range(options.prompts)]
        python, command = answered_elsewhere(found)
    clicks = sum(len(prompt.points) for prompt, _ in found)
    boxes = sum(prompt.box is not None for prompt, _ in found)
    figures = [
        Figure("window and Python, least DSC", min(python), "DSC", 1.0, at_least=True),
        Figure("window and command line, least DSC", min(command), "DSC", 1.0, at_least=True),
        Figure("masks that differ by a pixel or more", sum(dice < 1 for dice in (*python, *command)), "", 0),
        Figure("prompts", len(found)),
        Figure("of them with a box", boxes),
        Figure("clicks", clicks),
    ]
    note = "The built-in model on the `coins` sample, fields chosen by the object, 384 x 303 pixels."
    title = "The same prompt in the window, Python and command line"
    return publish("same_mask", title, figures, note, options.json)


def drawn(viewer: Any, dock: Any, chance: random.Random) -> tuple[Any, np.ndarray]:
    """Prompt one object with the mouse: its prompt and mask (H, W) as the window has them in the end."""
    work, session = dock.controller.work, dock.controller.session
    for layer in (
        layer for layer in viewer.layers if layer.name != "coins" and hasattr(layer, "remove_selected")
    ):
        layer.selected_data = set(range(len(layer.data)))
        layer.remove_selected()
    wait_until(lambda: len(work.document) == 0, 300)
    viewer.reset_view()
    viewer.scene.camera.zoom *= chance.choice((1.0, 1.0, 1.5, 2.5))
    wait_seconds(chance.choice((0.1, 0.5)))
    r0, c0, r1, c1 = work.view(work.shown_plane())

    def place() -> Place:
        return chance.uniform(r0 + 4, r1 - 5), chance.uniform(c0 + 4, c1 - 5)

    if chance.random() < 0.6:
        dock.tools.draw.click()
        one, other = place(), place()
        edges = [(min(a, b), max(a, b) + 12) for a, b in zip(one, other, strict=True)]
        (top, bottom), (left, right) = edges
        drag_box(viewer, (top, left, min(bottom, r1 - 2), min(right, c1 - 2)))
        dock.tools.click.click()
    else:
        dock.tools.click.click()
        click(viewer, place(), positive=True)
    wait_until(lambda: len(work.document) > 0, 300)
    for _ in range(chance.randrange(5)):
        if chance.random() < 0.6:
            wait_until(lambda: not session.awaited(work.document), 300)
        wait_seconds(0.3)  # two presses at once are a double click
        click(viewer, place(), positive=chance.random() < 0.5)
    wait_seconds(0.2)
    wait_until(lambda: not session.awaited(work.document), 300)
    [part] = work.document.parts()
    assert part.problem is None, part.problem
    return part.prompt, part.prediction.full(work.shown_plane().shape)


def click(viewer: Any, at: Place, *, positive: bool) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    from napari_medsam.demo.pointer import Pointer

    pointer = Pointer(viewer)
    key = Qt.KeyboardModifier.NoModifier if positive else Qt.KeyboardModifier.AltModifier
    QTest.mouseMove(pointer.canvas, pointer.to_canvas(at))
    QTest.mouseClick(pointer.canvas, Qt.MouseButton.LeftButton, key, pointer.to_canvas(at))


def answered_elsewhere(found: list[tuple[Any, np.ndarray]]) -> tuple[list[float], list[float]]:
    """DSC of Python's masks and of the command line's with those of the window."""
    import tifffile

    from napari_medsam import load_model
    from napari_medsam.cli import main as command_line
    from napari_medsam.evaluate.metrics import dice_coefficient
    from napari_medsam.image.plane import Plane
    from napari_medsam.samples import read_sample

    folder = RESULTS / "same_mask"
    folder.mkdir(parents=True, exist_ok=True)
    pixels, segmenter = read_sample("coins"), load_model(cache=None)
    tifffile.imwrite(folder / "image.tif", pixels)
    plane = Plane.from_array(pixels)
    cached = load_model()
    command_line._segmenter = lambda _: cached
    python, command = [], []
    for prompt, mask in found:
        python.append(dice_coefficient(segmenter.answer(plane, prompt).prediction.full(plane.shape), mask))
        edges = () if prompt.box is None else prompt.box.array().tolist()
        words = ["--box", ",".join(map(repr, edges))] if edges else []
        for point in prompt.points:
            words += ["--point", f"{point.row!r},{point.col!r},{'+' if point.positive else '-'}"]
        with contextlib.redirect_stdout(io.StringIO()):
            command_line.main(
                ["segment", str(folder / "image.tif"), "-o", str(folder / "labels.tif"), *words]
            )
        command.append(dice_coefficient(tifffile.imread(folder / "labels.tif") > 0, mask))
    return python, command


if __name__ == "__main__":
    sys.exit(main())
