"""What a session embeds before anybody asks: the slices next to the one on screen, last of all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_medsam import PATIENCE_S
from test_session import BIG, Bench, make_bench, make_plane  # noqa: F401

from napari_medsam.geometry import Box
from napari_medsam.session import session as session_module
from napari_medsam.session.prefetch import NEXT
from napari_medsam.session.settings import Settings

FOUR = [make_plane(seed, name=f"z{seed}") for seed in range(1, 5)]


def brightness(plane: object) -> float:
    return float(np.mean(plane.read(0, 0, 256, 256))) / 255  # type: ignore[attr-defined]


def order(bench: Bench, planes: list[object]) -> list[int]:
    """Which of the planes each encode was of, by its mean."""
    means = [brightness(plane) for plane in planes]
    found = [float(prepared.mean()) for prepared in bench.model.encoded]
    return [int(np.argmin([abs(mean - own) for mean in means])) for own in found]


@pytest.fixture
def ahead(make_bench: Callable[..., Bench]) -> Bench:  # noqa: F811
    return make_bench(settings=Settings(field="whole", contrast=_as_is()))


def _as_is() -> object:
    from napari_medsam.image.contrast import Contrast

    return Contrast.parse("0,255")


def test_they_come_after_the_plane_on_screen_nearest_first(ahead: Bench) -> None:
    here = make_plane(0)
    ahead.session.show(here, None, FOUR)
    ahead.wait(ahead.idle())
    assert order(ahead, [here, *FOUR]) == [0, 1, 2, 3, 4]
    ahead.session.show(FOUR[1])
    ahead.wait(lambda: ("shown", ("z2", True)) in ahead.heard)
    assert len(ahead.model.encoded) == 5


def test_a_prompt_goes_first_and_they_wait_until_prompting_has_ended(
    ahead: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "PROMPTING_S", 3600)
    here, other = make_plane(0), make_plane(9)
    ahead.model.hold()
    ahead.session.show(here, None, FOUR)
    assert ahead.model.encoding.wait(PATIENCE_S)
    [number] = ahead.add(other, BIG)
    ahead.model.release()
    ahead.wait(ahead.predicted(number))
    assert order(ahead, [here, other, *FOUR]) == [0, 1]
    ahead.session._scheduler.defer(NEXT, 0.05)
    ahead.wait(ahead.idle())
    assert len(ahead.model.encoded) == 6


def test_the_next_slice_renews_them(ahead: Bench) -> None:
    ahead.model.hold()
    ahead.session.show(make_plane(0), None, FOUR[:2])
    assert ahead.model.encoding.wait(PATIENCE_S)
    ahead.session.show(FOUR[0], None, FOUR[2:3])
    ahead.model.release()
    ahead.wait(lambda: ("shown", ("z1", False)) in ahead.heard and ahead.idle()())
    assert order(ahead, [make_plane(0), *FOUR]) == [0, 1, 3]


def test_none_when_it_is_switched_off(ahead: Bench) -> None:
    ahead.session.configure(ahead=False)
    ahead.session.show(make_plane(0), None, FOUR)
    ahead.wait(ahead.idle())
    assert len(ahead.model.encoded) == 1


def test_fields_under_the_view_follow_the_whole_slices(make_bench: Callable[..., Bench]) -> None:  # noqa: F811
    bench = make_bench(settings=Settings(contrast=_as_is()))  # type: ignore[arg-type]
    here, there = make_plane(0, (512, 512)), make_plane(1, (512, 512))
    bench.session.show(here, Box(0, 0, 200, 200), [there])
    bench.wait(bench.idle())
    alone = make_bench(settings=Settings(contrast=_as_is()))  # type: ignore[arg-type]
    alone.cache.clear()
    alone.session.show(there, Box(0, 0, 200, 200))
    alone.wait(alone.idle())
    tensors = [prepared.tobytes() for prepared in alone.model.encoded[:10]]
    made = [prepared.tobytes() for prepared in bench.model.encoded]
    assert made[-len(tensors) :] == tensors


def test_a_slice_that_cannot_be_read_is_nobodys_trouble(ahead: Bench) -> None:
    from napari_medsam.image.plane import Plane

    class Broken(np.ndarray):
        def __getitem__(self, key: object) -> object:
            raise OSError("gone")

    broken = Plane.from_array(np.zeros((256, 256), np.uint8).view(Broken), name="broken")
    ahead.session.show(make_plane(0), None, [broken])
    ahead.wait(ahead.idle())
    assert not ahead.all("shown_failed")
