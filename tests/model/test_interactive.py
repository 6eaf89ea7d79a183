"""The decoder that ships with the package, on the built-in model and an image of an installed package."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from napari_medsam.document.click_edits import as_it_stands, set_points
from napari_medsam.document.objects import Document, PlaneKey
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.evaluate.metrics import dice_coefficient
from napari_medsam.geometry import Box
from napari_medsam.image.plane import Plane
from napari_medsam.model.catalogue import INTERACTIVE
from napari_medsam.model.checkpoint import checkpoint_path, load_state
from napari_medsam.model.decoder_file import read_info
from napari_medsam.model.local import MedSAM, build_model
from napari_medsam.model.names import find_model
from napari_medsam.model.networks.weights import decoder_state, state_hash
from napari_medsam.samples import SAMPLES
from napari_medsam.segment.prediction import Prediction
from napari_medsam.segment.prompt import Point, Prompt
from napari_medsam.segment.segmenter import Segmenter
from napari_medsam.session.session import Session

BOXES = [Box(*box) for box in SAMPLES["coins"].boxes]
COIN = BOXES[0]


@pytest.fixture(scope="module")
def released() -> MedSAM:
    return build_model("lite-medsam-box", "cpu", backend="torch")


@pytest.fixture(scope="module")
def clicking() -> Segmenter:
    return Segmenter(build_model("lite-medsam", "cpu", backend="torch"))


@pytest.fixture(scope="module")
def coins() -> Plane:
    return Plane.from_array(data.coins(), name="coins")


def middle(box: Box, positive: bool = True) -> Point:
    return Point((box.r0 + box.r1) // 2, (box.c0 + box.c1) // 2, positive)


def agreement(one: Prediction, other: Prediction, plane: Plane) -> float:
    return dice_coefficient(one.full(plane.shape), other.full(plane.shape))


def test_the_file_says_what_it_is_and_is_small_enough_to_ship() -> None:
    info = read_info(INTERACTIVE)
    assert INTERACTIVE.stat().st_size < 9e6
    assert info.prompts == ("box", "point")
    assert info.base == "lite-medsam-box"
    assert info.config["visits"] > 0
    card = INTERACTIVE.with_suffix(".md").read_text(encoding="utf-8")
    for source in info.cases["train"]:
        assert f"| {source} |" in card
        assert source in info.dataset


def test_the_default_knows_clicks_and_the_released_decoder_stays_as_it_was(
    released: MedSAM, clicking: Segmenter
) -> None:
    assert clicking.model.prompts == {"box", "point"}
    assert released.prompts == {"box"}
    assert clicking.model.encoder_hash == released.encoder_hash
    assert clicking.model.decoder_hash == read_info(INTERACTIVE).decoder_hash != released.decoder_hash
    published = load_state(checkpoint_path(find_model("lite-medsam")))
    assert released.decoder_hash == state_hash(decoder_state(published))


def test_boxes_are_answered_as_before(released: MedSAM, clicking: Segmenter, coins: Plane) -> None:
    pairs = zip(clicking.predict(coins, BOXES), Segmenter(released).predict(coins, BOXES), strict=True)
    scores = [agreement(ours, theirs, coins) for ours, theirs in pairs]
    assert min(scores) > 0.9
    assert np.mean(scores) > 0.95


def test_one_click_finds_what_a_box_finds(clicking: Segmenter, coins: Plane) -> None:
    prompts = [Prompt(None, (middle(box),)) for box in BOXES[:3]]
    clicked = clicking.predict_prompts(coins, prompts)
    scores = [
        agreement(one, other, coins)
        for one, other in zip(clicked, clicking.predict(coins, BOXES[:3]), strict=True)
    ]
    assert np.median(scores) > 0.85


def test_a_click_is_heeded_and_changes_nothing_far_away(clicking: Segmenter, coins: Plane) -> None:
    [before] = clicking.predict(coins, [COIN])
    mask = before.full(coins.shape)
    rows, cols = np.nonzero(mask)
    edge = Point(int(rows[np.argmax(cols)]), int(cols.max()) - 5, positive=False)
    [after] = clicking.predict_prompts(coins, [Prompt(COIN, (edge,))])
    changed = mask ^ after.full(coins.shape)
    assert changed.any()
    away = np.hypot(*(np.indices(coins.shape) - np.array([edge.row, edge.col])[:, None, None]))
    assert away[changed].max() < 15


def test_python_and_a_session_answer_box_minus_and_plus_alike(
    clicking: Segmenter, coins: Plane, tmp_path: Path
) -> None:
    posted: queue.Queue[Callable[[], None]] = queue.Queue()
    session = Session(cache=EmbeddingCache(tmp_path), post=posted.put, load=lambda *_, **__: clicking.model)
    document, points = Document(), []
    plane = PlaneKey((None, None), (0, 1))
    number = document.add(plane, COIN, 1).id
    for click in (None, Point(COIN.r0 + 9, COIN.c0 + 9, False), middle(COIN)):
        if click is not None:
            points.append(click)
            set_points(
                document, number, plane, tuple(points), as_it_stands(document.part(number, plane), None)
            )
        session.request(document, [(number, plane)], coins)
        while session.awaited(document):
            posted.get(timeout=60)()
        found = document.part(number, plane).prediction
        [expected] = clicking.predict_prompts(coins, [Prompt(COIN, tuple(points))])
        assert found is not None
        assert agreement(found, expected, coins) == 1.0
    session.close()


def test_no_click_changes_nothing(clicking: Segmenter, coins: Plane) -> None:
    [box_alone] = clicking.predict(coins, [COIN])
    [same] = clicking.predict_prompts(coins, [Prompt(COIN)])
    assert np.array_equal(box_alone.mask, same.mask)
