"""The fit: what learns and what does not, the same run again, interrupted runs, ends of all kinds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_fakes import FRAME, PatchEncoder, disc_samples, seeded_decoder, tiny_model

from napari_medsam.errors import Cancelled, ModelError
from napari_medsam.finetune import checkpoint
from napari_medsam.finetune.checkpoint import drop_checkpoint, load_checkpoint, run_identity, save_checkpoint
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.features import FeatureStore
from napari_medsam.finetune.fit import Fit, Progress
from napari_medsam.finetune.samples import Sample
from napari_medsam.model.local import MedSAM
from napari_medsam.model.networks.weights import state_hash

QUICK = FinetuneConfig(epochs=3, batch=2, learning_rate=1e-3, shares=(1.0,))


Make = Callable[..., Fit]


@pytest.fixture(scope="module")
def model() -> MedSAM:
    """Smaller still than elsewhere: dim 64, for many epochs."""
    return tiny_model(PatchEncoder(channels=64))


@pytest.fixture(scope="module")
def train_side() -> list[Sample]:
    return disc_samples(range(4))


@pytest.fixture(scope="module")
def held_out() -> list[Sample]:
    return disc_samples(range(10, 12))


@pytest.fixture(scope="module")
def features(model: MedSAM, train_side: list[Sample], held_out: list[Sample]) -> FeatureStore:
    store = FeatureStore(model, None)
    list(store.fill([*train_side, *held_out]))
    return store


@pytest.fixture
def make(model: MedSAM, train_side: list[Sample], held_out: list[Sample], features: FeatureStore) -> Make:
    def build(
        config: FinetuneConfig = QUICK, validation: Sequence[Sample] = held_out, *, clicks: bool = False
    ) -> Fit:
        decoder = seeded_decoder(dim=64)
        decoder.load_state_dict(model.decoder_state())
        return Fit(decoder, train_side, validation, features, FRAME, config, clicks=clicks)

    return build


def finished(fit: Fit) -> str:
    list(fit.run())
    return state_hash(fit.best_state)


def test_the_loss_falls_and_nothing_but_the_mask_decoder_learns(make: Make, model: MedSAM) -> None:
    own, named = state_hash(model.decoder_state()), model.decoder_hash
    fit = make(replace(QUICK, epochs=8, learning_rate=4e-3))
    first = fit.trained.state()
    before = fit.validate()
    list(fit.run())
    losses = [float(point["loss"]) for point in fit.curve]
    assert losses[-1] < 0.75 * losses[0]
    assert fit.validate() > before + 0.1
    assert fit.validate() == max(point["validation"] for point in fit.curve)
    changed = {name for name, value in fit.best_state.items() if not torch.equal(value, first[name])}
    assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)
    assert (state_hash(model.decoder_state()), model.decoder_hash) == (own, named)
    assert state_hash(first) == own


def test_held_it_stays_near_what_the_first_decoder_answered(
    make: Make, train_side: list[Sample], features: FeatureStore
) -> None:
    """Taught discs first, then discs that lie 3 logits lower: the more it is held, the less it follows."""
    taught = make(replace(QUICK, epochs=8, learning_rate=4e-3))
    list(taught.run())
    moved = [replace(sample, target=np.roll(sample.target, 3, axis=0)) for sample in train_side]
    far = []
    for hold in (0.0, 1.0, 10.0):
        decoder = seeded_decoder(dim=64)
        decoder.load_state_dict(taught.best_state)
        fit = Fit(decoder, moved, [], features, FRAME, replace(QUICK, epochs=4, keep_base=hold))
        before = [fit._predicted(sample) for sample in moved]
        list(fit.run())
        after = [fit._predicted(sample) for sample in moved]
        far.append(float(np.mean([np.abs(a - b).mean() for a, b in zip(after, before, strict=True)])))
    assert far[2] < 0.7 * far[0]
    assert far[2] < far[1] < far[0]


def test_what_it_tells(make: Make, train_side: list[Sample]) -> None:
    fit = make(replace(QUICK, batch=1, epochs=2))
    told: list[Progress] = list(fit.run())
    assert [(now.epoch, now.samples, now.ended) for now in told] == [
        (1, 4, False), (1, 4, True), (2, 4, False), (2, 4, True),
    ]  # fmt: skip
    assert {(now.epochs, now.of) for now in told} == {(2, len(train_side))}
    assert [now.validation is not None for now in told] == [now.ended for now in told]
    assert [point["epoch"] for point in fit.curve] == [1, 2]
    assert np.all(np.diff([now.seconds for now in told]) >= 0)


def test_equal_seeds_give_equal_decoders_and_another_does_not(make: Make) -> None:
    first = finished(make())
    assert finished(make()) == first
    assert finished(make(replace(QUICK, seed=1))) != first


@pytest.mark.parametrize("hold", [0.0, 1.0])
def test_interrupted_and_resumed_is_as_never_interrupted(make: Make, tmp_path: Path, hold: float) -> None:
    config = replace(QUICK, batch=1, shares=(0.5, 1.0), keep_base=hold)
    whole = make(config)
    wanted = finished(whole)
    broken = make(config)
    for now in broken.run():
        if now.epoch == 2 and not now.ended:  # this epoch's steps are lost
            break
        if now.ended and now.epoch == 1:
            save_checkpoint(tmp_path, broken.state(), "mine")
    resumed = make(config)
    state = load_checkpoint(tmp_path, "mine")
    assert state is not None
    resumed.resume(state)
    assert [now.epoch for now in resumed.past()] == list(range(1, state.epoch + 1))
    assert finished(resumed) == wanted
    assert [point["loss"] for point in resumed.curve] == [point["loss"] for point in whole.curve]
    assert [point["validation"] for point in resumed.curve] == [point["validation"] for point in whole.curve]
    assert resumed.share == whole.share


def test_resumed_after_its_end_it_is_the_same_still(make: Make) -> None:
    """The share is not taken of what is a share already, and a state that was handed out does not change."""
    config = replace(QUICK, epochs=2, shares=(0.5,))
    whole = make(config)
    wanted = finished(whole)
    for _ in range(2):
        again = make(replace(config))
        again.resume(whole.state())
        assert finished(again) == wanted
    ends = []
    for _ in range(2):
        again = make(replace(config, epochs=3), validation=[])
        again.resume(whole.state())
        ends.append(finished(again))
    assert ends[0] == ends[1] != wanted


def test_stopping_is_quick_and_keeps_the_last_whole_epoch(make: Make) -> None:
    fit = make(replace(QUICK, epochs=1000, patience=1000))
    asked: list[float] = []

    def stopping() -> bool:
        if fit.state().epoch == 2 and not asked:
            asked.append(time.monotonic())
        return bool(asked)

    with pytest.raises(Cancelled):
        list(fit.run(stopping))
    assert time.monotonic() - asked[0] < 2
    assert [point["epoch"] for point in fit.curve] == [1, 2]
    two = make(replace(QUICK, epochs=1000, patience=1000))
    for now in two.run():
        if now.ended and now.epoch == 2:
            break
    assert state_hash(fit.best_state) == state_hash(two.best_state)


def test_stopped_at_once_it_has_what_it_began_with(make: Make, model: MedSAM) -> None:
    fit = make()
    with pytest.raises(Cancelled):
        list(fit.run(lambda: True))
    assert fit.curve == []
    assert state_hash(fit.best_state) == state_hash(model.decoder_state())


def test_it_ends_when_validation_no_longer_rises(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.3])
    fit = make(replace(QUICK, epochs=50, patience=2))
    at_best: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(fit, "validate", lambda *_: next(scores))
    for now in fit.run():
        if now.ended and now.epoch == 2:
            at_best = fit.trained.state()
    assert [point["epoch"] for point in fit.curve] == [1, 2, 3, 4]
    assert fit.state().best_epoch == 2
    assert state_hash(fit.best_state) == state_hash(at_best)


@pytest.mark.parametrize(("detail", "share"), [(1, 0.5), (2, 0.8)])
def test_without_validation_the_last_epoch_counts_and_the_careful_share(
    make: Make, detail: int, share: float
) -> None:
    """With detail the first decoder has never seen such fields: there is nothing to keep of it."""
    fit = make(replace(QUICK, shares=(0.5, 0.8), detail=detail), validation=[])
    assert fit.validate() is None
    list(fit.run())
    assert fit.state().best_epoch == 3
    assert fit.share == share
    assert all(point["validation"] is None for point in fit.curve)


def test_a_share_of_the_way_is_taken_where_validation_likes_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    likes = iter([0.1, 0.2, 0.3, 0.4, 0.9, 0.5])  # three epochs, then the shares 1, 0.5 and 0.25
    fit = make(replace(QUICK, shares=(0.25, 0.5, 1.0)))
    first = fit.trained.state()
    monkeypatch.setattr(fit, "validate", lambda *_: next(likes))
    for now in fit.run():
        if now.ended:
            last = fit.trained.state()
    assert fit.share == 0.5
    for name, value in fit.best_state.items():
        torch.testing.assert_close(value, (first[name] + last[name]) / 2)
    prompts = {name for name in first if name.startswith("prompt_encoder.")}
    assert all(torch.equal(fit.best_state[name], first[name]) for name in prompts)


def test_the_fields_of_one_object_are_validated_together(
    make, monkeypatch: pytest.MonkeyPatch, held_out: list[Sample]
) -> None:
    one, other = held_out
    halves = [replace(one, case="same"), replace(other, case="same", label=one.label)]
    fit = make(validation=halves)
    logits = {id(halves[0]): np.where(one.target > 127, 1.0, -1.0), id(halves[1]): np.full((64, 64), -1.0)}
    monkeypatch.setattr(fit, "_predicted", lambda sample: logits[id(sample)])
    found, missed = np.count_nonzero(one.target > 127), np.count_nonzero(other.target > 127)
    assert fit.validate() == pytest.approx(2 * found / (2 * found + missed))


@pytest.mark.parametrize("broken", ["features", "weights"])
def test_a_loss_that_is_not_finite_ends_the_fit(make: Make, features: FeatureStore, broken: str) -> None:
    fit = make()
    runs = fit.run()
    while not next(runs).ended:
        pass
    good = state_hash(fit.best_state)
    if broken == "features":
        fit._features = lambda sample: features(sample) * np.float16(np.inf)
    else:
        with torch.no_grad():
            fit.trained.learned[0].fill_(float("nan"))
    with pytest.raises(
        ModelError, match=r"Training failed: the loss.*epoch 2.*learning rate under 0\.000\d+, or"
    ):
        list(runs)
    assert state_hash(fit.best_state) == good


def test_the_learning_rate_rises_and_falls(make: Make) -> None:
    fit = make(replace(QUICK, epochs=50, warmup=0.1))
    rates = []
    for step in range(100):
        rates.append(fit._rate(1 + step // 2, step % 2))  # two steps an epoch
    assert int(np.argmax(rates)) in (9, 10)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-4)
    assert rates[-1] < 2e-5


def test_a_constant_rate_stays(make: Make) -> None:
    fit = make(replace(QUICK, epochs=50, warmup=0.0, schedule="constant"))
    for step in (0, 50, 99):
        assert fit._rate(1 + step // 2, step % 2) == 1e-3


# checkpoints


@pytest.fixture
def kept(make: Make, tmp_path: Path) -> Path:
    fit = make(replace(QUICK, epochs=1))
    list(fit.run())
    save_checkpoint(tmp_path, fit.state(), "mine")
    return tmp_path / checkpoint.CHECKPOINT_NAME


def test_a_damaged_checkpoint_counts_as_none(kept: Path) -> None:
    assert load_checkpoint(kept.parent, "mine") is not None
    assert load_checkpoint(kept.parent, "another") is None
    whole = kept.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 1  # one bit of one weight
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-1], bytes(spoilt)):
        kept.write_bytes(content)
        assert load_checkpoint(kept.parent, "mine") is None
    torch.save({"identity": "mine", "epoch": 1}, kept)
    assert load_checkpoint(kept.parent, "mine") is None
    drop_checkpoint(kept.parent)
    drop_checkpoint(kept.parent)
    assert load_checkpoint(kept.parent, "mine") is None


def test_a_checkpoint_executes_nothing(kept: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"identity": "mine", "epoch": Trap()}, kept)
    assert load_checkpoint(kept.parent, "mine") is None
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_belongs_to_config_sides_weights_and_device() -> None:
    roles = {"train": ("a", "b"), "val": ("c",), "test": ()}
    mine = run_identity(QUICK, roles, ("e", "d"), "cpu")
    assert run_identity(FinetuneConfig.from_json(QUICK.to_json()), dict(roles), ("e", "d"), "cpu") == mine
    others = [
        run_identity(replace(QUICK, seed=5), roles, ("e", "d"), "cpu"),
        run_identity(QUICK, {**roles, "train": ("a",), "test": ("b",)}, ("e", "d"), "cpu"),
        run_identity(QUICK, roles, ("e", "another"), "cpu"),
        run_identity(QUICK, roles, ("another", "d"), "cpu"),
        run_identity(QUICK, roles, ("e", "d"), "cuda"),
    ]
    assert mine not in others
    assert len(set(others)) == 5


def asked_prompts(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Whether there was a box, and how many clicks, of each prompt that is trained on."""
    asked: list[tuple[bool, int]] = []
    decode = fit.trained.decoder.decode_prompt

    def noting(image: object, box: object, points: torch.Tensor, *rest: object, **more: object) -> object:
        if torch.is_grad_enabled():
            asked.append((box is not None, len(points)))
        return decode(image, box, points, *rest, **more)

    monkeypatch.setattr(fit.trained.decoder, "decode_prompt", noting)
    list(fit.run())
    return asked


def test_a_decoder_that_knows_clicks_goes_on_learning_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = make(replace(QUICK, epochs=8, clicks=0.8), clicks=True)
    asked = asked_prompts(fit, monkeypatch)
    assert fit.trained.prompts == ("box", "point")
    assert (True, 0) in asked
    assert any(boxed and clicks for boxed, clicks in asked)
    assert any(not boxed and clicks for boxed, clicks in asked)


@pytest.mark.parametrize(("clicks", "detail"), [(False, 1), (True, 2)])
def test_a_decoder_of_boxes_or_of_detail_is_trained_on_boxes_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, clicks: bool, detail: int
) -> None:
    fit = make(replace(QUICK, clicks=0.8, detail=detail), clicks=clicks)
    assert set(asked_prompts(fit, monkeypatch)) == {(True, 0)}
    assert fit.trained.prompts == ("box",)


def test_runs_with_clicks_repeat_bit_for_bit(make: Make) -> None:
    config = replace(QUICK, clicks=0.8)
    assert finished(make(config, clicks=True)) == finished(make(config, clicks=True))
