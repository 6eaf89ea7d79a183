"""A whole run: events, the decoder file and what stays as it was; runs that end early and runs that cannot begin."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from finetune_fakes import MemoryCache, PatchEncoder, tiny_model, write_discs

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.embedding.cache import EmbeddingCache
from napari_medsam.errors import CaseError, CheckpointError, MedSAMError, ModelError
from napari_medsam.finetune.checkpoint import CHECKPOINT_NAME
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.events import Embedded, to_line
from napari_medsam.finetune.events import Event as TypedEvent
from napari_medsam.finetune.request import TrainingRequest
from napari_medsam.finetune.train import train
from napari_medsam.finetune.trained_decoder import TrainedDecoder
from napari_medsam.model.checkpoint import checkpoint_path
from napari_medsam.model.decoder_file import DecoderInfo, read_info, write_decoder
from napari_medsam.model.library import decoder_path
from napari_medsam.model.local import MedSAM, build_model, load_decoder
from napari_medsam.model.names import find_model
from napari_medsam.model.networks.weights import state_hash
from napari_medsam.records import plain

Event = dict[str, Any]
CONFIG = FinetuneConfig(epochs=2, batch=1, shares=(0.5, 1.0))


class Run:
    """A run on the tiny model: what it told, and a way to stop it at the first event that `stop_at` likes."""

    def __init__(self, tmp_path: Path, encoder: PatchEncoder) -> None:
        self.folder = tmp_path / "run"
        self.model = tiny_model(encoder)
        self.cache = MemoryCache()
        self.events: list[Event] = []
        self.stop_at: Callable[[Event], bool] = lambda _: False
        self.stopped = False

    def emit(self, event: TypedEvent) -> None:
        self.events.append(json.loads(to_line(event)))
        self.stopped = self.stopped or self.stop_at(self.events[-1])

    def __call__(self, request: TrainingRequest) -> Path | None:
        self.events.clear()
        return train(request, self.folder, self.emit, lambda: self.stopped, self.cache, self.build)  # type: ignore[arg-type]

    def build(self, name: str, device: str) -> MedSAM:
        assert (name, device) == ("lite-medsam", "auto")
        return self.model

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in groupby(event["kind"] for event in self.events)]


@pytest.fixture
def run(tmp_path: Path, encoder: PatchEncoder) -> Run:
    return Run(tmp_path, encoder)


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> CuratedDataset:
    """Six cases of one object, each a group of its own: four train, one validates, one (or two) judge."""
    return write_discs(tmp_path_factory.mktemp("discs"), range(6))


@pytest.fixture
def request_(discs: CuratedDataset) -> TrainingRequest:
    return TrainingRequest(discs.path, "mine", config=CONFIG)


def test_a_whole_run(
    run: Run, request_: TrainingRequest, discs: CuratedDataset, encoder: PatchEncoder
) -> None:
    before = state_hash(run.model.decoder_state())
    path = run(request_)
    assert path == decoder_path("mine")
    assert state_hash(run.model.decoder_state()) == before == run.model.decoder_hash
    assert run.kinds == ["dataset", "embedding", "training", "judging", "done"]
    first, last = run.events[0], run.events[-1]
    assert (first["cases"], first["objects"], first["by"], first["device"]) == (6, 6, "group", "cpu")
    assert sorted(stem for stems in first["split"].values() for stem in stems) == sorted(discs.cases)
    embedding = [event for event in run.events if event["kind"] == "embedding"]
    trained = len(first["split"]["train"]) + len(first["split"]["val"])
    assert [event["done"] for event in embedding] == list(range(1, trained + 1))
    assert embedding[-1]["left"] == 0
    training = [event for event in run.events if event["kind"] == "training"]
    assert [event["epoch"] for event in training if event["ended"]] == [1, 2]
    assert training[-1]["left"] == 0
    judging = [event for event in run.events if event["kind"] == "judging"]
    assert [(event["done"], event["of"]) for event in judging] == [
        (n + 1, len(first["split"]["test"])) for n in range(len(first["split"]["test"]))
    ]
    assert (last["decoder"], last["name"], last["adopted"]) == (str(path), "mine", False)
    assert last["verdict"]["decision"] == "unsure"  # of so few objects
    assert [last["verdict"][role] for role in ("new", "current", "released")] == [
        "mine",
        *["lite-medsam"] * 2,
    ]
    assert all((run.folder / name).is_file() for name in last["verdict"]["pictures"])
    assert not (run.folder / CHECKPOINT_NAME).exists()
    assert encoder.calls == 6


def test_the_file_says_what_it_is_worth_and_loads(
    run: Run, request_: TrainingRequest, discs: CuratedDataset
) -> None:
    path = run(request_)
    assert path is not None
    info = read_info(path)
    assert info.encoder_hash == run.model.encoder_hash
    assert plain(info.verdict) == run.events[-1]["verdict"]
    assert info.cases == {role: tuple(stems) for role, stems in run.events[0]["split"].items()}
    assert [point.epoch for point in info.curve] == [1, 2]
    assert FinetuneConfig.from_json(info.config) == CONFIG
    assert (info.name, info.base, info.classes, info.dataset) == (
        "mine",
        "lite-medsam",
        ("cell",),
        str(discs.path),
    )
    tuned = load_decoder(run.model, path)
    assert tuned.decoder_hash == info.decoder_hash != run.model.decoder_hash
    assert find_model("mine").decoder == path


def test_a_second_run_of_the_name_gets_another(run: Run, request_: TrainingRequest) -> None:
    first, second = run(request_), run(request_)
    assert first is not None
    assert second == decoder_path("mine 2")
    assert read_info(second).decoder_hash == read_info(first).decoder_hash
    assert all(event["made"] == 0 for event in run.events if event["kind"] == "embedding")  # all hits


def test_the_decoder_in_use_is_the_one_to_beat(run: Run, request_: TrainingRequest) -> None:
    run(replace(request_, name="first"))
    run(replace(request_, name="second", current="first"))
    verdict = run.events[-1]["verdict"]
    assert [verdict[role] for role in ("new", "current", "released")] == ["second", "first", "lite-medsam"]
    assert verdict["mean"]["current"] == pytest.approx(verdict["mean"]["new"])  # the same training


def test_a_table_and_an_output_of_ones_own(
    run: Run, request_: TrainingRequest, discs: CuratedDataset, tmp_path: Path
) -> None:
    (tmp_path / "split.csv").write_text(f"{discs.cases[0]},train\n{discs.cases[1]},test\n")
    output = tmp_path / "a folder" / "out.safetensors"
    assert run(replace(request_, split=tmp_path / "split.csv", output=output)) == output
    assert (run.events[0]["by"], run.events[0]["cases"]) == ("table", 2)
    assert read_info(output).name == "out"


def test_only_one_case_trains_unjudged(run: Run, request_: TrainingRequest, tmp_path: Path) -> None:
    write_discs(tmp_path / "one", [3])
    assert run(replace(request_, dataset=tmp_path / "one")) is not None
    assert run.kinds == ["dataset", "embedding", "training", "done"]
    verdict = run.events[-1]["verdict"]
    assert (verdict["decision"], verdict["objects"], verdict["pictures"]) == ("unsure", 0, [])


# stopped


def test_stopped_while_it_embeds(run: Run, request_: TrainingRequest) -> None:
    run.stop_at = lambda event: event["kind"] == "embedding" and event["done"] == 2
    assert run(request_) is None
    assert run.kinds == ["dataset", "embedding", "stopped"]
    assert (run.events[-1]["decoder"], run.events[-1]["name"]) == (None, "mine")
    assert len(run.cache.kept) == 2
    assert not list(decoder_path("mine").parent.glob("*.safetensors"))


def test_stopped_before_it_began(run: Run, request_: TrainingRequest) -> None:
    run.stopped = True
    assert run(request_) is None
    assert run.kinds == ["stopped"]


@pytest.mark.parametrize(("epoch", "kept"), [(1, False), (2, True)])
def test_stopped_while_it_trains(run: Run, request_: TrainingRequest, epoch: int, kept: bool) -> None:
    run.stop_at = lambda event: event["kind"] == "training" and event["epoch"] == epoch and not event["ended"]
    stop_soon = replace(
        request_, config=replace(CONFIG, epochs=50, views=2)
    )  # views: more steps after the report
    path = run(stop_soon)
    assert run.kinds[-2:] == ["training", "stopped"]
    assert (path is not None) == kept
    assert run.events[-1]["decoder"] == (str(path) if kept else None)
    if path is not None:
        assert read_info(path).verdict is None
        assert [point.epoch for point in read_info(path).curve] == [1]
        load_decoder(run.model, path)
        assert not (run.folder / CHECKPOINT_NAME).exists()


def test_stopped_while_it_judges(run: Run, request_: TrainingRequest) -> None:
    run.stop_at = lambda event: event["kind"] == "judging"
    path = run(request_)
    assert path is not None
    assert run.kinds[-2:] == ["judging", "stopped"]
    assert read_info(path).verdict is None


# killed and begun again


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@pytest.mark.parametrize("moment", ["training", "judging"])
def test_a_killed_run_ends_with_the_decoder_of_one_that_was_not(
    run: Run,
    request_: TrainingRequest,
    tmp_path: Path,
    encoder: PatchEncoder,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    monkeypatch.setattr(
        "napari_medsam.finetune.train.KEEP_EVERY_S", 1e9
    )  # the first epoch alone, on slow machines too
    request = replace(request_, config=replace(CONFIG, epochs=3))
    other = Run(tmp_path / "other", encoder)
    wanted = read_info(other(replace(request, name="never killed")))  # type: ignore[arg-type]

    def kill(event: Event) -> bool:
        if event["kind"] == moment and (moment == "judging" or event["epoch"] == 2):
            raise Killed
        return False

    run.stop_at = kill
    with pytest.raises(Killed):
        run(request)
    run.stop_at = lambda _: False
    steps: list[object] = []
    step = TrainedDecoder.step
    monkeypatch.setattr(TrainedDecoder, "step", lambda own, *given: steps.append(own) or step(own, *given))
    path = run(request)
    assert path == decoder_path("mine")
    assert len(steps) == 2 * len(run.events[0]["split"]["train"])  # the first epoch is not trained again
    assert read_info(path).decoder_hash == wanted.decoder_hash
    assert [point.loss for point in read_info(path).curve] == [point.loss for point in wanted.curve]
    assert sorted(path.parent.iterdir()) == [path, path.with_name("never killed.safetensors")]


# runs that cannot be


def refused(run: Run, request: TrainingRequest, error: type[MedSAMError], said: str) -> None:
    with pytest.raises(error, match=said):
        run(request)
    assert "training" not in run.kinds
    assert not list(decoder_path("mine").parent.glob("mine*"))


def test_a_dataset_without_anything_to_learn(run: Run, request_: TrainingRequest, tmp_path: Path) -> None:
    CuratedDataset(tmp_path / "empty", create=True)
    refused(run, replace(request_, dataset=tmp_path / "empty"), CaseError, "no cases")
    refused(run, replace(request_, dataset=tmp_path / "nowhere"), CaseError, "does not exist")
    write_discs(tmp_path / "specks", [0], radius=1.2)
    refused(run, replace(request_, dataset=tmp_path / "specks"), CaseError, "hold no objects")


def test_an_output_that_cannot_be_written_is_told_before_the_training(
    run: Run, request_: TrainingRequest, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for output in (tmp_path / "file" / "a.safetensors", tmp_path / "folder.safetensors"):
        refused(run, replace(request_, output=output), CheckpointError, "cannot be written")
        assert run.events == []


def test_a_decoder_is_no_model_to_start_with(run: Run, request_: TrainingRequest) -> None:
    info = DecoderInfo("first", "lite-medsam", run.model.encoder_hash, "d" * 64)
    write_decoder(decoder_path("first"), run.model.decoder_state(), info)
    refused(run, replace(request_, base="first"), ModelError, "first is a decoder.*Choose lite-medsam")


def test_a_decoder_in_use_that_does_not_fit_is_told_before_the_training(
    run: Run, request_: TrainingRequest
) -> None:
    foreign = DecoderInfo("foreign", "lite-medsam", "another" * 9, "d" * 64)
    write_decoder(decoder_path("foreign"), run.model.decoder_state(), foreign)
    refused(run, replace(request_, current="foreign"), CheckpointError, "trained on the encoder")
    refused(run, replace(request_, current="gone"), ModelError, "Unknown model 'gone'")


def test_a_loss_that_is_not_finite_gives_no_decoder(run: Run, request_: TrainingRequest) -> None:
    """Features so large that the loss overflows, which the encoder's float16 allows."""
    state = run.model.decoder_state()
    state["mask_decoder.iou_prediction_head.layers.2.bias"][:] = 1e30
    run.model = run.model.with_decoder(state)
    with pytest.raises(ModelError, match="Training failed: the loss was"):
        run(request_)
    assert not list(decoder_path("mine").parent.glob("*.safetensors"))


def test_errors_of_torch_are_translated(
    run: Run, request_: TrainingRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TrainedDecoder, "step", fail)
    with pytest.raises(ModelError, match=r"tiny failed while training on cpu: out of memory\. Train on"):
        run(request_)


# the real one


def test_the_built_in_model_learns_in_one_epoch(tmp_path: Path) -> None:
    write_discs(tmp_path / "cases", range(3))
    events: list[TypedEvent] = []
    cache = EmbeddingCache()
    released = checkpoint_path(find_model("lite-medsam"))
    before = (released.stat().st_mtime_ns, released.stat().st_size)
    request = TrainingRequest(
        tmp_path / "cases", "mine", config=FinetuneConfig(epochs=1, batch=2, shares=(1.0,)), device="cpu"
    )
    path = train(request, tmp_path / "run", events.append)
    assert path is not None
    kinds = [kind for kind, _ in groupby(event.kind for event in events)]
    assert kinds == ["dataset", "embedding", "training", "judging", "done"]
    model = build_model("lite-medsam", "cpu")
    info = read_info(path)
    assert (info.base, info.encoder_hash) == ("lite-medsam", model.encoder_hash)
    assert load_decoder(model, path).decoder_hash == info.decoder_hash != model.decoder_hash
    assert (released.stat().st_mtime_ns, released.stat().st_size) == before
    assert cache.stats().entries == 3
    again: list[TypedEvent] = []
    train(replace(request, name="again"), tmp_path / "run 2", again.append)
    assert [event.made for event in again if isinstance(event, Embedded)] == [0, 0]
    assert read_info(decoder_path("again")).decoder_hash == info.decoder_hash
