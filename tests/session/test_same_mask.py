"""The same prompt gives the same mask from Python, from the command line and in a session, whatever came before."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command_line import run
from fake_medsam import PATIENCE_S, FakeDecoded, FakeEncoded, FakeLoader, FakeMedSAM
from scipy import ndimage

from napari_medsam.cli import main as cli
from napari_medsam.document.click_edits import as_it_stands, set_points
from napari_medsam.document.objects import Document, PlaneKey
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.embedding.embed import Embedding, FieldRequest, embed
from napari_medsam.geometry import Box, Patch
from napari_medsam.image.plane import Plane
from napari_medsam.model.frame_prompt import FramePrompt
from napari_medsam.segment import fields
from napari_medsam.segment.engine import MaskBefore, painted_only
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point
from napari_medsam.segment.segmenter import Segmenter
from napari_medsam.session import session as session_module
from napari_medsam.session.session import Session
from napari_medsam.session.settings import Settings

KEY = PlaneKey((None, None), (0, 1))
SHAPE = (300, 360)
ROWS, COLS = np.indices((256, 256))


class Fickle(FakeMedSAM):
    """Answers otherwise on each field, for each mask before and each click: whatever differs is seen in the mask."""

    def __init__(self) -> None:
        super().__init__(name="fickle", prompts=frozenset({"box", "point"}))

    def encode(self, prepared: np.ndarray) -> FakeEncoded:
        self.encoded.clear()
        return super().encode(prepared)

    def decode(self, features: np.ndarray, boxes: np.ndarray, *, key: str | None = None) -> FakeDecoded:
        found = [self.decode_prompt(features, FramePrompt(box), key=key) for box in boxes]
        return FakeDecoded(*(np.concatenate([getattr(f, name) for f in found]) for name in ("logits", "iou")))

    def decode_prompt(
        self,
        features: np.ndarray,
        prompt: FramePrompt,
        *,
        key: str | None = None,  # noqa: ARG002
    ) -> FakeDecoded:
        grey = features[:16].reshape(4, 4, 64, 64).transpose(2, 0, 3, 1).reshape(256, 256)
        logits = 6 * (ndimage.uniform_filter(grey.astype(np.float32), 9) - 0.5)
        if prompt.box is not None:
            r0, c0, r1, c1 = prompt.box
            logits += np.where((r0 <= ROWS) & (r1 > ROWS) & (c0 <= COLS) & (c1 > COLS), 1, -3)
        for (row, col), positive in zip(prompt.points, prompt.positive, strict=True):
            near = np.exp(-((ROWS - row) ** 2 + (COLS - col) ** 2) / 2 / 24**2)
            logits += np.float32(5 if positive else -5) * near
        if prompt.box is None:
            logits -= 2
        if prompt.mask is not None:
            logits += prompt.mask / 4
        iou = 0.5 + 0.5 * np.sin(37 * logits[::16, ::16].sum())
        return FakeDecoded(logits[None].astype(np.float32), np.array([iou], np.float32))


class ShuffledScheduler:
    """Embeds what it was asked for in an order of the test's choosing, when the test says so."""

    def __init__(self, model: Callable[[], Any], cache: EmbeddingCache, **_: Any) -> None:
        self.model, self.cache = model, cache
        self.open: list[tuple[FieldRequest, Future[Embedding]]] = []

    def submit(self, request: FieldRequest) -> Future[Embedding]:
        future: Future[Embedding] = Future()
        self.open.append((request, future))
        return future

    def embed_one(self, chance: random.Random) -> None:
        urgent = [n for n, (request, _) in enumerate(self.open) if not request.priority]
        if self.open:
            chosen = chance.choice(urgent) if urgent else chance.randrange(len(self.open))
            request, future = self.open.pop(chosen)
            future.set_result(embed(self.model(), self.cache, request))

    def defer(self, *_: Any) -> None: ...
    def cancel(self, *_: Any) -> None: ...
    def close(self, **_: Any) -> None: ...


@dataclass
class Desk:
    """A session, its document, and the chance by which things happen."""

    session: Session
    plane: Plane
    chance: random.Random
    posted: queue.Queue[Callable[[], None]]
    document: Document
    shown: int = 0

    def click(self, number: int, *points: Point, standing: MaskBefore | None = None) -> None:
        """Give an object these clicks, as the window does."""
        part = self.document.part(number, KEY)
        waits = (number, KEY) in self.session.awaited(self.document)
        change = set_points(self.document, number, KEY, points, standing or as_it_stands(part, None))
        if change.restore is not None:
            self.session.withdraw(self.document, (number, KEY))
            self.document.update_part(number, KEY, prediction=change.restore.prediction, before=None)
        if change.ask or (change.restore is not None and waits):
            self.session.request(self.document, [(number, KEY)], self.plane)

    def go_on(self, steps: int | None = None) -> None:
        """Let some things happen; None: until nothing is awaited any more."""
        deadline = time.monotonic() + PATIENCE_S
        done = 0
        while self.session.awaited(self.document) if steps is None else done < steps:
            assert time.monotonic() < deadline, "the mask never came"
            done += 1
            self.session._scheduler.embed_one(self.chance)  # type: ignore[attr-defined]
            self.session._prompts.submit(lambda: None).result(PATIENCE_S)
            while not self.posted.empty():
                self.posted.get()()


@pytest.fixture
def pixels() -> np.ndarray:
    noise = np.random.default_rng(5).random(SHAPE)
    smooth = ndimage.gaussian_filter(noise, 6)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def a_point(chance: random.Random, positive: bool) -> Point:
    return Point(
        round(chance.uniform(0, SHAPE[0] - 1), 2), round(chance.uniform(0, SHAPE[1] - 1), 2), positive
    )


def a_box(chance: random.Random) -> Box:
    height, width = (chance.uniform(12, side * 0.9) for side in SHAPE)
    row, col = chance.uniform(0, SHAPE[0] - height), chance.uniform(0, SHAPE[1] - width)
    return Box(*(round(edge, 1) for edge in (row, col, row + height, col + width)))


def act(desk: Desk, number: int) -> None:
    """Do to an object what a user might do next."""
    chance, part = desk.chance, desk.document.part(number, KEY)
    points = part.points
    action = chance.choice(("plus", "minus", "plus", "minus", "undo", "move", "paint"))
    if action == "undo" and len(points) > (part.box is None):
        desk.click(number, *points[:-1])
    elif action == "move" and len(points) > (part.box is None):
        n = chance.randrange(part.box is None, len(points))
        desk.click(number, *points[:n], a_point(chance, points[n].positive), *points[n + 1 :])
    elif action == "paint" and not desk.session.awaited(desk.document) and part.prediction is not None:
        painted = Patch(chance.randrange(200), chance.randrange(200), np.ones((60, 40), bool))
        desk.document.update_part(number, KEY, before=part.prediction.patch, extent=Box(0, 0, *SHAPE))
        standing = MaskBefore(part.prediction, painted)
        desk.click(number, *points, a_point(chance, positive=False), standing=standing)
    else:
        desk.click(number, *points, a_point(chance, action == "plus"))


def same(one: Prediction, other: Prediction) -> bool:
    return (one.row, one.col) == (other.row, other.col) and np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize(
    ("field", "detail", "whole_up_to", "sequences"),
    [
        ("auto", 1, fields.WHOLE_UP_TO, 35),
        pytest.param("auto", 1, 64**2, 30, id="a plane too large to be read whole"),
        ("whole", 1, fields.WHOLE_UP_TO, 20),
        ("auto", 2, fields.WHOLE_UP_TO, 15),
        ("whole", 2, fields.WHOLE_UP_TO, 10),
    ],
)
def test_python_command_line_and_session_agree_to_the_pixel(
    field: str,
    detail: int,
    whole_up_to: int,
    sequences: int,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(session_module, "EmbeddingScheduler", ShuffledScheduler)
    monkeypatch.setattr(fields, "WHOLE_UP_TO", whole_up_to)
    monkeypatch.setattr("napari_medsam.segment.engine.WHOLE_UP_TO", whole_up_to)
    tifffile.imwrite(tmp_path / "image.tif", pixels)
    model, plane = Fickle(), Plane.from_array(pixels)
    warm = EmbeddingCache(tmp_path / "cache 0")
    kinds: set[tuple[bool, int, bool]] = set()
    for seed in range(sequences):
        chance = random.Random(seed)
        desk = make_desk(model, plane, tmp_path / f"cache {seed % 3}", field, detail, chance)
        box = a_box(chance) if chance.random() < 0.6 else None
        number = desk.document.add(KEY, box, 1).id
        if box is None:
            desk.click(number, a_point(chance, positive=True))
        else:
            desk.session.request(desk.document, [(number, KEY)], plane)
        for _ in range(chance.randrange(6)):
            desk.go_on(chance.choice((0, 0, 1, 3)) if chance.random() < 0.7 else None)
            act(desk, number)
        desk.go_on()
        desk.session.close()
        part = desk.document.part(number, KEY)
        painted = any(mask.painted is not None for mask in part.masks_before)
        kinds.add((box is None, len(part.points), painted))
        assert part.prediction is not None
        assert part.prompt is not None
        python = Segmenter(model, warm if seed % 2 else None)  # type: ignore[arg-type]
        answer = python.answer(
            plane, part.prompt, field=field, detail=detail, masks_before=painted_only(part.masks_before)
        )
        assert same(part.prediction, answer.prediction), f"seed {seed}: {part.prompt}"
        for ours, theirs in zip(part.masks_before[::-1], answer.masks_before[::-1], strict=True):
            if ours.painted is not None or ours.prediction is None:
                break  # what is under the paint need not be found again
            assert theirs.prediction is not None
            assert same(ours.prediction, theirs.prediction)
        if not painted:
            words = commands(part.prompt.box, part.points)
            monkeypatch.setattr(cli, "_segmenter", lambda _: Segmenter(model, warm))  # type: ignore[arg-type]
            given = ["-o", tmp_path / "labels.tif", "--field", field, "--detail", detail, *words]
            assert run("segment", tmp_path / "image.tif", *given) == 0
            labels = tifffile.imread(tmp_path / "labels.tif")
            assert np.array_equal(labels > 0, part.prediction.full(SHAPE)), f"seed {seed}"
    capsys.readouterr()
    assert len(kinds) > 5  # sequences of many kinds


def make_desk(
    model: Fickle, plane: Plane, cache: Path, field: str, detail: int, chance: random.Random
) -> Desk:
    posted: queue.Queue[Callable[[], None]] = queue.Queue()
    settings = Settings(model="fickle", field=field, detail=detail, ahead=chance.random() < 0.3)
    session = Session(
        settings, cache=EmbeddingCache(cache), post=posted.put, load=FakeLoader({"fickle": model})
    )
    if chance.random() < 0.7:
        row, col, side = chance.randrange(200), chance.randrange(200), chance.randrange(40, 100)
        session.show(plane, Box(row, col, row + side, col + side))
    desk = Desk(session, plane, chance, posted, Document())
    desk.go_on(chance.choice((0, 2, 12)))
    return desk


def commands(box: Box | None, points: tuple[Point, ...]) -> list[str]:
    edges = () if box is None else (box.r0, box.c0, box.r1, box.c1)
    given = [] if box is None else ["--box", ",".join(repr(float(edge)) for edge in edges)]
    for point in points:
        given += ["--point", f"{point.row!r},{point.col!r},{'+' if point.positive else '-'}"]
    return given
