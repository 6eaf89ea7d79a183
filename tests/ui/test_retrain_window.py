"""The Retrain panel, with a training process that plays what it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_medsam import FakeMedSAM
from PIL import Image
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QFileDialog, QMessageBox
from recorded_run import DATASET, Trainer, done, embedding, training, verdict, write_fake_decoder
from ui_desk import Desk

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.errors import CaseError
from napari_medsam.finetune.events import Done, Failed, Stopped
from napari_medsam.finetune.request import TrainingRequest, write_request
from napari_medsam.folders import runs_folder
from napari_medsam.model.library import own_decoders
from napari_medsam.ui.launch import MenuRetrain, open_retrain
from napari_medsam.ui.retrain.panel import RetrainPanel

A, B = (40, 60, 120, 180), (150, 20, 220, 90)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def desk(open_desk: Callable[..., Desk], trainer: Trainer) -> Desk:
    models = {name: FakeMedSAM(name) for name in ("lite-medsam", "mine", "second", "fine")}
    return open_desk(models=models, begin=trainer)


@pytest.fixture
def panel(desk: Desk, tmp_path: Path) -> RetrainPanel:
    desk.dock.export.folder.value = tmp_path / "set"
    return open_retrain(desk.dock.desk)


@pytest.fixture
def corrected(desk: Desk, image: np.ndarray) -> Desk:
    """A desk with a plane on which one of two masks was corrected."""
    desk.open(image, name="cells")
    desk.add_boxes(A, B)
    desk.paint(2, slice(140, 160), slice(20, 60))
    return desk


def run_to(desk: Desk, panel: RetrainPanel, trainer: Trainer, *events: dict[str, Any]) -> None:
    """Start a run, play these events, and wait until the panel shows the last."""
    panel.start.click()
    assert panel.training.running
    trainer.last.say(*events)
    ended = isinstance(events[-1], Done | Stopped | Failed)
    QCoreApplication.processEvents()  # the events arrive, and a timer waits to show them
    desk.wait(lambda: panel.training.running != ended and not panel.training._update_timer.isActive())


class TestCases:
    def test_an_empty_folder_says_what_to_do(self, desk: Desk, panel: RetrainPanel) -> None:
        desk.wait(lambda: "No cases yet" in panel.summary.text())

    def test_corrected_planes_are_added_and_counted(
        self, corrected: Desk, panel: RetrainPanel, tmp_path: Path
    ) -> None:
        panel.add.click()
        corrected.wait(lambda: "1 case, 2 objects: 1 corrected, 1 untouched" in panel.summary.text())
        assert len(CuratedDataset(tmp_path / "set")) == 1

    def test_a_plane_nobody_corrected_is_not_added(
        self, desk: Desk, panel: RetrainPanel, image: np.ndarray, tmp_path: Path
    ) -> None:
        desk.open(np.stack([image, image[::-1]]), name="stack")
        desk.add_boxes_at((0,), A)
        desk.add_boxes_at((1,), A)
        panel.add.click()
        assert "No corrected masks" in desk.said[-1]
        desk.viewer.dims.set_current_step(0, 1)
        desk.paint(2, slice(0, 20), slice(0, 20))
        panel.add.click()
        desk.wait(lambda: "1 case in" in desk.said[-1])
        [case] = list(CuratedDataset(tmp_path / "set"))
        assert case.source.index[0] == 1

    def test_what_the_dock_exports_is_seen(self, corrected: Desk, panel: RetrainPanel) -> None:
        corrected.dock.export.button.click()
        corrected.wait(lambda: "1 case," in panel.summary.text())

    def test_the_folder_follows_the_docks(self, desk: Desk, panel: RetrainPanel, tmp_path: Path) -> None:
        desk.dock.export.folder.value = tmp_path / "other"
        assert Path(panel.folder.value) == tmp_path / "other"
        assert panel.settings.request(tmp_path / "other", "lite-medsam", "cpu").name == "other"

    def test_a_split_that_cannot_be_read_is_said(self, corrected: Desk, panel: RetrainPanel) -> None:
        panel.add.click()
        corrected.wait(lambda: "1 case," in panel.summary.text())
        panel.settings.table.setText("/nowhere/split.csv")
        panel.settings.table.editingFinished.emit()
        corrected.wait(lambda: "/nowhere/split.csv" in panel.summary.text())


class TestRun:
    def test_the_request_is_what_the_controls_say(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer, tmp_path: Path
    ) -> None:
        write_fake_decoder("mine")
        desk.dock.desk.decoders.changed.emit()
        desk.dock.desk.decoders.use("mine")
        settings = panel.settings
        settings.name.setText("cells")
        settings.epochs.setValue(7)
        settings.detail.setValue(4)
        settings.views.setValue(8)
        settings.seed.setValue(3)
        panel.start.click()
        asked = trainer.last.request
        assert (asked.dataset, asked.name, asked.split) == (tmp_path / "set", "cells", None)
        assert (asked.base, asked.current) == ("lite-medsam", "mine")
        config = asked.config
        assert (config.epochs, config.detail, config.views, config.seed) == (7, 4, 8, 3)

    def test_epochs_are_left_to_the_trainer(self, panel: RetrainPanel, trainer: Trainer) -> None:
        panel.start.click()
        assert trainer.last.request.config.epochs is None

    def test_corrections_are_written_first(
        self, corrected: Desk, panel: RetrainPanel, trainer: Trainer, tmp_path: Path
    ) -> None:
        panel.start.click()
        assert not panel.start.isEnabled()
        corrected.wait(lambda: bool(trainer.runs))
        assert len(CuratedDataset(tmp_path / "set")) == 1
        assert len(trainer.runs) == 1

    def test_nothing_is_trained_when_they_cannot_be_written(
        self, corrected: Desk, panel: RetrainPanel, trainer: Trainer, tmp_path: Path
    ) -> None:
        (tmp_path / "taken").write_text("a file")
        panel.folder.value = tmp_path / "taken"
        panel.start.click()
        corrected.wait(lambda: "failed" in "".join(corrected.said) and panel.start.isEnabled())
        assert not trainer.runs

    def test_or_not(self, corrected: Desk, panel: RetrainPanel, trainer: Trainer, tmp_path: Path) -> None:
        panel.with_open.setChecked(False)
        panel.start.click()
        assert trainer.runs
        assert not (tmp_path / "set").exists()
        assert corrected.ids

    def test_it_is_followed(self, desk: Desk, panel: RetrainPanel, trainer: Trainer) -> None:
        run_to(desk, panel, trainer, DATASET, embedding(4))
        assert panel.line.text() == "Embedding: 4 of 12 fields, 24 s left"
        assert (panel.progress.value(), panel.progress.maximum()) == (4, 12)
        assert "9 cases, 31 objects; 5 cases train, 1 validate, 3 judge; on cpu" in panel.device.text()
        assert not panel.start.isEnabled()
        assert panel.stop.isEnabled()
        trainer.last.say(training(1, 0.9, 0.6), training(2, 0.7, 0.65), training(3, 0.6, None, ended=False))
        desk.wait(lambda: "epoch 3 of 4" in panel.line.text())
        assert "3 min left" in panel.line.text()
        assert [point.epoch for point in panel.plot._curve] == [1, 2]

    def test_the_plot_draws_what_it_is_given(self, desk: Desk, panel: RetrainPanel, trainer: Trainer) -> None:
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, None))
        panel.plot.resize(360, 130)
        one = panel.plot.grab().toImage()
        trainer.last.say(training(2, 0.4, 0.5), training(3, 0.35, 0.7))
        desk.wait(lambda: len(panel.plot._curve) == 3)
        assert panel.plot.grab().toImage() != one

    def test_many_events_are_few_updates(self, desk: Desk, panel: RetrainPanel, trainer: Trainer) -> None:
        told: list[Any] = []
        panel.training.changed.connect(told.append)
        panel.start.click()
        trainer.last.say(DATASET, *(embedding(number % 12) for number in range(2000)), embedding(11))
        desk.wait(lambda: panel.progress.value() == 11)
        assert len(told) <= 4

    def test_stop_keeps_the_best(self, desk: Desk, panel: RetrainPanel, trainer: Trainer) -> None:
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, 0.6))
        panel.stop.click()
        assert trainer.last.stopped
        assert not panel.stop.isEnabled()
        assert "Stopping" in panel.line.text()
        path = write_fake_decoder("mine")
        trainer.last.say(Stopped(path, "mine", "Stopped; kept."))
        desk.wait(lambda: not panel.training.running)
        assert panel.line.text() == "Stopped; kept."
        assert "before it was judged" in panel.verdict.sentence.text()
        assert panel.start.isEnabled()
        assert desk.session.settings.model == "lite-medsam"
        assert not panel.use_anyway.isHidden()
        assert panel.list.table.item(0, 0).text() == "mine"

    def test_a_failure_is_said(self, desk: Desk, panel: RetrainPanel, trainer: Trainer) -> None:
        run_to(desk, panel, trainer, DATASET, Failed("Out of memory. Use fewer cases."))
        assert panel.line.text() == "Out of memory. Use fewer cases."
        assert desk.said[-1] == "Out of memory. Use fewer cases."
        assert panel.start.isEnabled()
        panel.start.click()
        assert len(trainer.runs) == 2

    def test_a_run_that_cannot_start_is_said(
        self, desk: Desk, panel: RetrainPanel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise CaseError("The run's folder cannot be written.")

        monkeypatch.setattr(panel.training, "_begin", refuse)
        panel.start.click()
        assert desk.said[-1] == "The run's folder cannot be written."
        assert panel.start.isEnabled()

    def test_the_process_is_closed_once_it_has_ended(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer
    ) -> None:
        run_to(desk, panel, trainer, Failed("no"))
        desk.wait(lambda: trainer.last.closed)


class TestVerdict:
    def test_an_adopted_decoder_is_used_at_once_and_can_be_left(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer, image: np.ndarray
    ) -> None:
        desk.open(image)
        desk.add_boxes(A)
        write_fake_decoder("mine")
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, 0.6), done("adopt"))
        assert desk.session.settings.model == "mine"
        assert desk.dock.image.model.name.currentData() == "mine"
        assert "It is in use now." in desk.said[-1]
        desk.wait(lambda: bool(desk.loader.models["mine"].decoded))
        assert desk.loader.models["mine"].encoded == []  # the embeddings stay
        assert panel.use_anyway.isHidden()
        assert panel.back.text() == "Back to lite-medsam"
        panel.back.click()
        assert desk.session.settings.model == "lite-medsam"
        assert panel.back.text() == "Back to mine"

    def test_one_that_is_kept_aside_can_be_used_anyway(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer
    ) -> None:
        write_fake_decoder("mine")
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, 0.6), done("keep"))
        assert desk.session.settings.model == "lite-medsam"
        assert "kept aside" in panel.line.text()
        assert not panel.use_anyway.isHidden()
        panel.use_anyway.click()
        assert desk.session.settings.model == "mine"
        assert panel.use_anyway.isHidden()
        assert panel.back.text() == "Back to lite-medsam"

    def test_it_is_shown_as_a_table_and_pictures(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer, tmp_path: Path
    ) -> None:
        write_fake_decoder("mine")
        panel.start.click()
        Image.new("RGB", (320, 200), (200, 0, 0)).save(trainer.last.folder / "worst_1.png")
        Image.new("RGB", (9, 9)).save(tmp_path / "worst_2.png")
        trainer.last.say(DATASET, done("keep"))
        desk.wait(lambda: not panel.training.running)
        table = panel.verdict.table
        assert [table.item(row, 0).text() for row in range(table.rowCount())] == [
            "All",
            "class cell",
            "worst",
            "g",
        ]
        assert table.item(2, 2).text() == "0.700"
        assert "Kept aside. Because of the figures." in panel.verdict.sentence.text()
        assert not panel.verdict.strip.isHidden()

    def test_another_model_chosen_meanwhile_stays(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer
    ) -> None:
        write_fake_decoder("mine"), write_fake_decoder("second")
        panel.start.click()
        desk.dock.desk.decoders.use("second")
        trainer.last.say(done("adopt"))
        desk.wait(lambda: not panel.training.running)
        assert desk.session.settings.model == "second"
        assert "not used yet" in desk.said[-1]

    def test_the_way_back_is_there_in_a_new_window(self, desk: Desk) -> None:
        write_fake_decoder("second")
        write_fake_decoder("mine", verdict=verdict("adopt", current="second"))
        desk.dock.desk.decoders.use("mine")
        desk.dock.desk.decoders._last = None  # as after a restart
        assert desk.dock.desk.decoders.previous == "second"


class TestDecoders:
    @pytest.fixture(autouse=True)
    def files(self) -> None:
        write_fake_decoder("mine", cases={"train": ("a", "b")}, verdict=verdict("keep"), notes="good")
        write_fake_decoder("fine", detail=8)

    def cells(self, panel: RetrainPanel) -> list[list[str]]:
        table = panel.list.table
        return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount())]

    def test_they_are_listed_here_and_in_the_dock(self, desk: Desk, panel: RetrainPanel) -> None:
        assert self.cells(panel) == [["fine", "0", "Not judged", ""], ["mine", "2", "Kept aside", "good"]]
        desk.dock.desk.decoders.changed.emit()
        assert desk.dock.image.model.name.findData("fine") > 0

    def test_a_selected_one_shows_its_verdict(self, panel: RetrainPanel) -> None:
        panel.list.select("mine")
        assert "Because of the figures" in panel.verdict.sentence.text()
        panel.list.select("fine")
        assert panel.verdict.sentence.text() == "fine was not judged."

    def test_its_detail_comes_with_it_and_goes(self, desk: Desk, panel: RetrainPanel) -> None:
        panel.list.select("fine")
        panel.list.use.click()
        assert desk.session.settings.detail == 8
        assert desk.dock.image.detail.value() == 8
        panel.back.click()
        assert (desk.session.settings.model, desk.session.settings.detail) == ("lite-medsam", 1)

    def test_a_detail_of_the_users_own_stays(self, desk: Desk, panel: RetrainPanel) -> None:
        desk.dock.image.detail.setValue(3)
        panel.list.select("mine")
        panel.list.use.click()
        assert (desk.session.settings.model, desk.session.settings.detail) == ("mine", 3)

    def test_the_model_box_of_the_dock_uses_it_too(self, desk: Desk, panel: RetrainPanel) -> None:
        desk.dock.desk.decoders.changed.emit()
        box = desk.dock.image.model.name
        box.setCurrentIndex(box.findData("fine"))
        assert (desk.session.settings.model, desk.session.settings.detail) == ("fine", 8)
        assert panel.back.text() == "Back to lite-medsam"

    def test_rename_and_notes(self, desk: Desk, panel: RetrainPanel) -> None:
        desk.dock.desk.decoders.use("mine")
        panel.list.table.item(1, 0).setText("second")
        assert [decoder.name for decoder in own_decoders()] == ["fine", "second"]
        assert desk.session.settings.model == "second"
        assert desk.dock.image.model.name.currentData() == "second"
        assert desk.dock.desk.decoders.previous == "lite-medsam"
        panel.list.table.item(1, 3).setText("very good")
        assert own_decoders()[1].info.notes == "very good"

    def test_a_bad_name_is_said_and_taken_back(self, desk: Desk, panel: RetrainPanel) -> None:
        for bad in ("a/b", "fine", ""):
            panel.list.table.item(1, 0).setText(bad)
            assert "name" in desk.said[-1]
            assert self.cells(panel)[1][0] == "mine"

    def test_delete_asks_and_lets_go(
        self, desk: Desk, panel: RetrainPanel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.dock.desk.decoders.use("mine")
        panel.list.select("mine")
        answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
        monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
        panel.list.delete.click()
        assert len(own_decoders()) == 2
        panel.list.delete.click()
        assert [decoder.name for decoder in own_decoders()] == ["fine"]
        assert desk.session.settings.model == "lite-medsam"
        assert not panel.back.isEnabled()

    def test_export_and_import(
        self, desk: Desk, panel: RetrainPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = tmp_path / "away.safetensors"
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(away), ""))
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(away), ""))
        panel.list.select("mine")
        panel.list.save.click()
        assert away.is_file()
        panel.list.load.click()
        assert panel.list.selected is not None
        assert panel.list.selected.name == "mine 2"
        away.write_text("nonsense")
        panel.list.load.click()
        assert "damaged" in desk.said[-1]
        assert len(own_decoders()) == 3


class TestResume:
    def test_a_run_that_was_cut_off_is_offered_and_gone_on_with(
        self, desk: Desk, tmp_path: Path, trainer: Trainer
    ) -> None:
        folder = runs_folder() / "20260101-120000-abc"
        write_request(folder, TrainingRequest(tmp_path / "set", "old one"))
        panel = open_retrain(desk.dock.desk)
        assert not panel.interrupted.isHidden()
        assert "old one" in panel.unfinished.currentText()
        panel.resume.click()
        assert (trainer.last.folder, trainer.last.request.name) == (folder, "old one")
        assert panel.interrupted.isHidden()
        trainer.last.say(training(3, 0.4, 0.7), Failed("no"))
        desk.wait(lambda: not panel.training.running)
        assert panel.interrupted.isHidden()  # it ended

    def test_it_can_be_discarded(self, desk: Desk, tmp_path: Path) -> None:
        folder = runs_folder() / "20260101-120000-abc"
        write_request(folder, TrainingRequest(tmp_path / "set", "old one"))
        (runs_folder() / "20260102-120000-abc").mkdir()
        panel = open_retrain(desk.dock.desk)
        panel.discard.click()
        assert not folder.exists()
        assert panel.interrupted.isHidden()

    def test_one_that_cannot_be_read_is_said(self, desk: Desk, trainer: Trainer) -> None:
        folder = runs_folder() / "20260101-120000-abc"
        folder.mkdir(parents=True)
        (folder / "request.json").write_text("[")
        panel = open_retrain(desk.dock.desk)
        panel.resume.click()
        assert "cannot be read" in desk.said[-1]
        assert not trainer.runs


class TestEnd:
    def test_a_panel_closed_while_it_runs_comes_back_to_the_run(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer
    ) -> None:
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, 0.6))
        desk.viewer.window.remove_dock_widget(panel)
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        assert not trainer.last.closed
        write_fake_decoder("mine")
        trainer.last.say(training(2, 0.8, 0.7))
        desk.settle()
        again = open_retrain(desk.dock.desk)
        desk.wait(lambda: "epoch 2 of 4" in again.line.text())
        assert again.stop.isEnabled()
        desk.viewer.window.remove_dock_widget(again)
        trainer.last.say(done("adopt"))
        desk.wait(lambda: desk.session.settings.model == "mine")

    def test_a_viewer_closed_while_it_runs_ends_the_process(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer
    ) -> None:
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, 0.6))
        desk.viewer.close()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        assert trainer.last.closed
        trainer.last.say(done("adopt"))  # nobody listens

    def test_the_dock_closed_while_it_runs_takes_the_panel_with_it(
        self, desk: Desk, panel: RetrainPanel, trainer: Trainer
    ) -> None:
        run_to(desk, panel, trainer, DATASET, training(1, 0.9, 0.6))
        desk.viewer.window.remove_dock_widget(desk.dock)
        assert trainer.last.closed
        desk.settle()
        assert not any(isinstance(one, RetrainPanel) for one in desk.viewer.window.dock_widgets.values())

    def test_dock_and_viewer_closed_in_one_go(self, desk: Desk, panel: RetrainPanel, qtbot: Any) -> None:
        assert panel.training is desk.dock.desk.training
        desk.dock.close_session()
        desk.viewer.close()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        qtbot.wait(50)  # what the dock's end had put off

    def test_one_panel_a_dock(self, desk: Desk, panel: RetrainPanel) -> None:
        assert open_retrain(desk.dock.desk) is panel

    def test_from_napari_s_menu_it_finds_the_dock(self, desk: Desk) -> None:
        panel = MenuRetrain(desk.viewer)
        desk.viewer.window.add_dock_widget(panel, name="Retrain")
        assert panel.desk is desk.dock.desk
