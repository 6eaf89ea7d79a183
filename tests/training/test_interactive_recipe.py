"""The recipe of the decoder that knows clicks, on a tiny model: pictures, lessons, teaching, and the command."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from finetune_fakes import FRAME, PatchEncoder, tiny_model
from PIL import Image

from napari_medsam.model.decoder_file import read_info
from napari_medsam.model.local import MedSAM
from napari_medsam.model.networks.weights import state_hash

TRAINING = Path(__file__).parents[2] / "training" / "interactive"
DISCS = {"licence": "CC0-1.0", "modality": "discs", "labels": "instances", "fields": 2}
BARE = {"licence": "MIT", "modality": "noise", "labels": "none", "fields": 1}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"napari_medsam_training.interactive.{name}")


@pytest.fixture
def model() -> MedSAM:
    return tiny_model(PatchEncoder())


@pytest.fixture
def pictures() -> ModuleType:
    return module("pictures")


@pytest.fixture
def fields() -> ModuleType:
    return module("fields")


@pytest.fixture
def teach() -> ModuleType:
    return module("teach")


def discs(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Two bright discs on noise, and their numbers."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.uint8)
    for number, col in ((3, side // 4), (7, 3 * side // 4)):
        labels[np.hypot(rows - side // 2 - rng.uniform(-6, 6), cols - col) < side / 6] = number
    return np.clip(rng.normal(90, 25, labels.shape) + 90 * (labels > 0), 0, 255).astype(np.uint8), labels


def write_set(folder: Path, count: int, *, masks: bool = True) -> Path:
    for number in range(count):
        for name, pixels in zip(("images", "masks"), discs(number), strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            if masks or name == "images":
                Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    return folder


def source_of(pictures: ModuleType, folder: Path, **entry: Any) -> Any:
    return pictures.Source(folder.name, folder, **{**DISCS, **entry})


class TestPictures:
    def test_a_table_names_where_each_source_is(self, pictures: ModuleType, tmp_path: Path) -> None:
        write_set(tmp_path / "b" / "discs", 1)
        table = tmp_path / "table.json"
        table.write_text(json.dumps({"discs": DISCS}))
        [found] = pictures.read_sources(table, [tmp_path / "a", tmp_path / "b"])
        assert (found.folder, found.labels, found.fields) == (tmp_path / "b" / "discs", "instances", 2)
        with pytest.raises(FileNotFoundError, match=r"no discs/images in .*Fetch it"):
            pictures.read_sources(table, [tmp_path / "a"])

    def test_instances_are_numbered_and_components_found(self, pictures: ModuleType, tmp_path: Path) -> None:
        folder = write_set(tmp_path / "discs", 1)
        [one] = pictures.pictures_of(source_of(pictures, folder))
        assert np.unique(one.labels).tolist() == [0, 1, 2]
        mask = (np.asarray(Image.open(folder / "masks" / "00.png")) > 0).astype(np.uint8)
        mask[0, :3] = 1  # a speck
        Image.fromarray(mask * 255).save(folder / "masks" / "00.png")
        [other] = pictures.pictures_of(source_of(pictures, folder, labels="components"))
        assert np.array_equal(other.labels > 0, one.labels > 0)
        assert len(np.unique(other.labels)) == 3
        [bare] = pictures.pictures_of(source_of(pictures, folder, labels="none"))
        assert bare.labels is None

    def test_large_images_are_reduced_with_their_labels(
        self, pictures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(pictures, "LONGEST", 50)
        [one] = pictures.pictures_of(source_of(pictures, write_set(tmp_path / "discs", 1)))
        assert one.pixels.shape == one.labels.shape == (48, 48)
        assert np.unique(one.labels).tolist() == [0, 1, 2]

    def test_a_volume_gives_slices_across_its_coarsest_axis(
        self, pictures: ModuleType, tmp_path: Path
    ) -> None:
        import nibabel

        for name in ("images", "masks"):
            (tmp_path / "vol" / name).mkdir(parents=True)
            values = np.zeros((20, 24, 5), np.int16)
            values[5:15, 6:18, 1:4] = 1 if name == "masks" else 700
            nibabel.save(
                nibabel.Nifti1Image(values, np.diag([1, 1, 4, 1])), tmp_path / "vol" / name / "a.nii.gz"
            )
        found = list(pictures.pictures_of(source_of(pictures, tmp_path / "vol", labels="components")))
        assert [one.stem for one in found] == ["a.nii.gz:2:1", "a.nii.gz:2:2", "a.nii.gz:2:3"]
        assert all(one.pixels.shape == (24, 20) and one.labels.max() == 1 for one in found)


class TestLessons:
    def lessons(self, fields: ModuleType, folder: Path) -> list[Any]:
        return list(fields.read_lessons(folder))

    def test_they_are_made_once_and_are_the_same_for_a_seed(
        self, fields: ModuleType, pictures: ModuleType, tmp_path: Path
    ) -> None:
        source, encoder = source_of(pictures, write_set(tmp_path / "discs", 2)), PatchEncoder()
        model = tiny_model(encoder)
        assert fields.make_lessons(source, model, tmp_path / "a", 0) == 6
        first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
        (tmp_path / "a" / "discs-00003.npz").unlink()  # as if the run had been cut short
        assert fields.make_lessons(source, model, tmp_path / "a", 0) == 6
        assert encoder.calls == 6 + 1
        assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == first
        fields.make_lessons(source, model, tmp_path / "b", 1)
        assert any((tmp_path / "b" / name).read_bytes() != content for name, content in first.items())

    def test_their_objects_are_those_of_the_field(
        self, fields: ModuleType, pictures: ModuleType, model: MedSAM, tmp_path: Path
    ) -> None:
        source = source_of(pictures, write_set(tmp_path / "discs", 2))
        fields.make_lessons(source, model, tmp_path / "a", 0)
        lessons = self.lessons(fields, tmp_path / "a")
        assert len(lessons[0].objects) == 2  # the whole plane
        for lesson in lessons:
            assert lesson.features.shape == (256, 16, 16)
            assert not lesson.own
            for target in lesson.objects:
                assert np.count_nonzero(target > 127) >= fields.LEAST_LOGITS

    def test_where_nobody_drew_the_released_decoder_teaches(
        self,
        fields: ModuleType,
        pictures: ModuleType,
        model: MedSAM,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        source = source_of(pictures, write_set(tmp_path / "bare", 2, masks=False), labels="none")
        assert fields.make_lessons(source, model, tmp_path / "strict", 0) == 6
        monkeypatch.setattr(fields, "SURE_IOU", -1e9)
        monkeypatch.setattr(fields, "_main_part", lambda _: np.pad(np.ones((30, 30), bool), (0, 34)))
        fields.make_lessons(source, model, tmp_path / "lax", 0)
        taught = self.lessons(fields, tmp_path / "lax")
        assert taught
        assert all(lesson.own and len(lesson.objects) == 1 for lesson in taught)  # equal masks count once

    def test_a_field_that_shows_nothing_is_left_out(
        self, fields: ModuleType, pictures: ModuleType, model: MedSAM, tmp_path: Path
    ) -> None:
        folder = write_set(tmp_path / "flat", 1)
        Image.fromarray(np.full((96, 96), 80, np.uint8)).save(folder / "images" / "00.png")
        assert fields.make_lessons(source_of(pictures, folder), model, tmp_path / "a", 0) == 3
        assert self.lessons(fields, tmp_path / "a") == []


class TestTeacher:
    @pytest.fixture
    def lessons(
        self, fields: ModuleType, pictures: ModuleType, model: MedSAM, tmp_path: Path
    ) -> Sequence[Any]:
        source = source_of(pictures, write_set(tmp_path / "discs", 3))
        fields.make_lessons(source, model, tmp_path / "lessons", 0)
        return [replace(lesson, held=False) for lesson in fields.read_lessons(tmp_path / "lessons")]

    def taught(self, teach: ModuleType, model: MedSAM, lessons: Sequence[Any], **knobs: Any) -> Any:
        recipe = teach.Recipe(
            **{
                "visits": 8,
                "batch": 4,
                "learning_rate": 2e-3,
                "precision": "float32",
                "average": 0.5,
                **knobs,
            }
        )
        teacher = teach.Teacher(model.decoder_state(), lessons, FRAME, recipe)
        steps = list(teacher.teach())
        assert [step.visits for step in steps] == list(range(4, recipe.visits + 1, 4))
        return teacher

    def test_only_the_mask_decoder_learns_and_a_seed_gives_the_same(
        self, teach: ModuleType, model: MedSAM, lessons: Sequence[Any]
    ) -> None:
        before = model.decoder_state()
        state = self.taught(teach, model, lessons).average.state_dict()
        changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
        assert changed
        assert all(name.startswith("mask_decoder.") for name in changed)
        assert state_hash(model.decoder_state()) == model.decoder_hash
        again = self.taught(teach, model, lessons).average.state_dict()
        assert state_hash(again) == state_hash(state)
        assert state_hash(self.taught(teach, model, lessons, seed=1).average.state_dict()) != state_hash(
            state
        )

    def test_it_learns_what_a_click_means(
        self, teach: ModuleType, model: MedSAM, lessons: Sequence[Any]
    ) -> None:
        validate = module("validate").validate
        held = [replace(lesson, held=True) for lesson in lessons]
        teacher = self.taught(teach, model, lessons, visits=80)
        before = validate(teacher.trained.base, held, FRAME)["discs"]
        after = validate(teacher.average, held, FRAME)["discs"]
        assert list(after) == ["box", "box+1", "box+2", "box+3", "1", "2", "3", "IoU error"]
        assert after["1"] > before["1"] + 0.1
        assert after["box"] > before["box"]

    def test_lessons_kept_out_are_not_learned(
        self, teach: ModuleType, model: MedSAM, lessons: Sequence[Any]
    ) -> None:
        part = list(lessons[:3])
        poison = [replace(lessons[4], features=lessons[4].features * np.float16(np.nan), held=True)]
        known = self.taught(teach, model, part).average.state_dict()
        assert state_hash(self.taught(teach, model, part + poison).average.state_dict()) == state_hash(known)


def test_one_command_from_pictures_to_the_decoder_and_its_card(
    model: MedSAM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = module("build")
    monkeypatch.setattr(build, "build_model", lambda *_: model)
    for name, masks in (("discs", True), ("bare", False)):
        write_set(tmp_path / "images" / name, 14, masks=masks)  # one of each is held out
    table, output = tmp_path / "table.json", tmp_path / "mine.safetensors"
    table.write_text(json.dumps({"discs": DISCS, "bare": BARE}))
    words = ["--images", str(tmp_path / "images"), "--work", str(tmp_path / "work"), "--table", str(table)]
    words += ["--output", str(output), "--visits", "8"]
    assert build.main(words) == 0
    said = capsys.readouterr().out
    assert "discs: 42 fields" in said
    assert "bare: 28 fields" in said
    info = read_info(output)
    assert (info.base, info.prompts, info.cases["train"]) == (
        "lite-medsam-box", ("box", "point"), ("discs", "bare"),
    )  # fmt: skip
    assert info.config["visits"] == 8
    card = output.with_suffix(".md").read_text()
    assert "| discs | discs | CC0-1.0 | truth |" in card
    assert "| bare | noise | MIT | teacher |" in card
    assert "visits 8" in card
    assert "| source | box | box+1" in card
    assert info.encoder_hash == model.encoder_hash
    assert build.main(words) == 0  # the lessons are there; the weights come out the same
    assert read_info(output).decoder_hash == info.decoder_hash


def test_a_card_without_fields_held_out_says_so(tmp_path: Path) -> None:
    card, teach = module("card"), module("teach")
    card.write_card(tmp_path / "mine.md", [], [], teach.Recipe(), {}, {})
    assert "of so few pictures none was held out" in (tmp_path / "mine.md").read_text()
