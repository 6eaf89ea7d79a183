"""What a run's events add up to, a dataset's overview, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from recorded_run import DATASET, done, embedding, training, verdict

from napari_medsam.curation.case import Case, CaseObject
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.summary import look_at
from napari_medsam.errors import CaseError
from napari_medsam.evaluate.verdict import Verdict
from napari_medsam.finetune.events import Event, Failed, JudgedSoFar, Stopped
from napari_medsam.finetune.run_state import RunState, follow, time_left
from napari_medsam.finetune.verdict_text import HEADING, decision_of, rows_of, sentence_of
from napari_medsam.model.decoder_file import CurvePoint


def after(*events: Event) -> RunState:
    return reduce(follow, events, RunState("mine"))


class TestFollow:
    def test_a_run_from_start_to_verdict(self) -> None:
        assert RunState().line.startswith("Starting")
        view = after(DATASET)
        assert (view.cases, view.objects, view.device) == (9, 31, "cpu")
        assert view.split == {"train": 5, "val": 1, "test": 3}
        view = after(DATASET, embedding(4))
        assert view.line == "Embedding: 4 of 12 fields, 24 s left"
        view = after(DATASET, training(1, 0.8, 0.6), training(2, 0.5, None, ended=False))
        assert (view.done, view.of) == (28, 80)
        assert view.line == "Training: epoch 2 of 4, best 2, 3 min left"
        assert view.curve == (CurvePoint(1, 0.8, 0.6),)
        view = follow(view, JudgedSoFar(3, 14, None))
        assert view.line == "Judging on held-out cases: 3 of 14 objects"
        view = follow(view, done("adopt"))
        assert (view.state, view.adopted, view.ended, view.name) == ("done", True, True, "mine")
        assert view.line == "mine is adopted. Because of the figures."
        assert view.curve == (CurvePoint(1, 0.8, 0.6),)

    def test_one_that_is_kept_aside_says_why(self) -> None:
        assert after(done("keep")).line == "mine is kept aside. Because of the figures."
        assert not after(done("unsure")).adopted

    def test_only_whole_epochs_are_points(self) -> None:
        events = [
            training(1, 0.9, None, ended=False),
            training(1, 0.8, None),
            training(2, 0.7, None, ended=False),
        ]
        assert after(*events).curve == (CurvePoint(1, 0.8, None),)

    def test_nothing_changes_after_the_end(self) -> None:
        ended = after(Failed("no memory"))
        assert (ended.state, ended.line) == ("failed", "no memory")
        assert follow(ended, training(1, 0.5, 0.5)) is ended

    def test_stopped_with_and_without_a_decoder(self) -> None:
        assert after(Stopped(None, "mine 2", "Stopped.")).decoder is None
        view = after(Stopped(Path("/x/mine 2.safetensors"), "mine 2", "Stopped."))
        assert (view.decoder, view.name) == (Path("/x/mine 2.safetensors"), "mine 2")

    @pytest.mark.parametrize(
        ("seconds", "text"), [(None, ""), (0.2, ", 1 s left"), (89.4, ", 89 s left"), (150, ", 2 min left")]
    )
    def test_time_left(self, seconds: float | None, text: str) -> None:
        assert time_left(seconds) == text


@pytest.fixture
def add_case(tmp_path: Path) -> Callable[..., Path]:
    folder = tmp_path / "set"

    def add(number: int, group: str | None, corrected: int = 1, objects: int = 2) -> Path:
        gts = np.zeros((32, 32), np.uint8)
        for label in range(1, objects + 1):
            gts[:, 4 * label : 4 * label + 3] = label
        found = tuple(
            CaseObject(
                label, "cell" if label == 1 else "nucleus", min(label, 2), corrected=label <= corrected
            )
            for label in range(1, objects + 1)
        )
        image = np.full((32, 32, 3), number, np.uint8)
        CuratedDataset(folder, create=True).append(Case(image, gts, (1.0, 1.0), found, group=group))
        return folder

    return add


class TestOverview:
    def test_counts_and_split(self, add_case: Callable[..., Path]) -> None:
        for number in range(8):
            folder = add_case(number, f"patient {number // 2}")
        found = look_at(folder)
        assert (found.cases, found.objects, found.corrected, found.groups) == (8, 16, 8, 4)
        assert found.classes == {"cell": 8, "nucleus": 8}
        assert found.split == {"train": 6, "val": 0, "test": 2}
        assert found.lines == [
            "8 cases, 16 objects: 8 corrected, 8 untouched",
            "Classes: cell 8, nucleus 8",
            "Divided by group: 6 train, 0 validate, 2 judge",
        ]

    def test_a_table_decides(self, add_case: Callable[..., Path], tmp_path: Path) -> None:
        for number in range(3):
            folder = add_case(number, "one")
        stems = CuratedDataset(folder).cases
        table = tmp_path / "split.csv"
        table.write_text(f"{stems[0]},test\n{stems[1]},train\n")
        found = look_at(folder, table=table)
        assert (found.split, found.by) == ({"train": 1, "val": 0, "test": 1}, "table")
        with pytest.raises(CaseError):
            look_at(folder, table=tmp_path / "gone.csv")

    def test_one_group_is_divided_by_case(self, add_case: Callable[..., Path]) -> None:
        for number in range(3):
            folder = add_case(number, "one")
        assert "Divided by case" in look_at(folder).lines[-1]

    def test_a_folder_that_is_not_there_or_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for folder in (tmp_path / "gone", tmp_path / "empty"):
            assert look_at(folder).lines == ["No cases yet. Correct masks, then add or export them."]

    def test_a_single_case(self, add_case: Callable[..., Path]) -> None:
        assert look_at(add_case(1, None, objects=1)).lines[0] == "1 case, 1 object: 1 corrected, 0 untouched"


class TestVerdict:
    def test_rows(self) -> None:
        rows = rows_of(verdict("adopt"))
        assert [row[0] for row in rows] == ["All", "class cell", "worst", "g"]
        assert rows[0] == ("All", "14", "0.900", "0.800", "0.500", "0.950", "0.850", "0.550")
        assert all(len(row) == len(HEADING) for row in rows)

    def test_the_sentence(self) -> None:
        assert sentence_of(verdict("adopt")) == (
            "Adopted. Because of the figures. In brackets the 95% interval over groups; judged on 3 cases."
        )

    def test_one_that_cannot_tell_has_no_difference(self) -> None:
        found = Verdict(decision="unsure", reason="Too few.")
        assert sentence_of(found) == "Cannot tell. Too few."
        assert rows_of(found) == [("All", "0", "", "", "", "", "", "")]

    def test_none(self) -> None:
        assert decision_of(None) == decision_of(Verdict()) == "Not judged"
