"""What was made of an image comes back from its journal, whatever became of the process or the file."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from journal_desk import SHAPE, Table, assert_same_objects, full_table, identity, key, prediction, stack

from napari_medsam.document.objects import ObjectRecord
from napari_medsam.folders import journal_folder
from napari_medsam.geometry import Box
from napari_medsam.journal import writer as journal_module
from napari_medsam.journal.format import Outline, sealed
from napari_medsam.journal.recovery import UnsavedJournal, find_unsaved, prune
from napari_medsam.journal.writer import SUFFIX, Journal

PLANE = {"index": [0, None, None], "displayed": [1, 2]}
NONE = {"row": 0, "col": 0, "mask": [0, 0, "eNoDAAAAAAE="]}


def json_line(entry: object) -> bytes:
    """A line that says anything."""
    return sealed(json.dumps(entry).encode())


def only(folder: Path) -> UnsavedJournal:
    [left] = find_unsaved(folder, identity())
    return left


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_field_comes_back(tmp_path: Path) -> None:
    table = full_table(tmp_path)
    drawn = {(1, key()): Outline("polygon", ((4.5, 5.0), (24.25, 7.0), (10.0, 29.5)))}
    table.tell(waiting=frozenset({(4, key(1))}), outlines=drawn)
    table.journal.close()
    left = only(tmp_path)
    assert (left.objects, left.unsaved) == (5, 5)
    assert abs(left.when - time.time()) < 60
    found = left.read()
    assert_same_objects(found, table)
    assert found.waiting == {(4, key(1))}
    assert found.outlines == drawn
    assert found.broken == 0
    assert (found.header.image, found.header.channel_axis) == (identity(), None)


def test_the_names_in_a_file_stay_as_journals_of_today_have_them(tmp_path: Path) -> None:
    """A field of a part that is renamed needs another version, and a reader of this one."""
    table = full_table(tmp_path)
    table.tell()
    table.journal.close()
    lines = [json.loads(line[9:]) for line in table.journal.path.read_bytes().splitlines()]
    assert lines[0].keys() == {"image", "channel_axis", "begun", "format", "version"}
    assert lines[0]["version"] == 2
    [clicked] = [line for line in lines if line.get("part", {}).get("points")]
    assert clicked.keys() == {"part", "class", "waiting", "outline"}
    part = clicked["part"]
    prompts = {"box", "points", "masks_before", "prediction", "before"}
    rest = {"object_id", "plane", "extent", "turn", "problem", "origin", "score"}
    assert part.keys() == prompts | rest
    assert part["plane"].keys() == {"index", "displayed"}
    assert part["points"][0].keys() == {"row", "col", "positive"}
    assert part["masks_before"][1].keys() == {"prediction", "painted"}
    assert part["masks_before"][1]["painted"].keys() == {"row", "col", "mask"}
    found = part["prediction"]
    assert {"box", "row", "col", "mask", "iou", "key", "field"} <= found.keys()
    assert found["field"].keys() == {"row", "col", "height", "width", "kind"}
    assert [len(found[name]) for name in ("box", "mask")] == [4, 3]


def test_each_change_replaces_what_was_known(tmp_path: Path) -> None:
    table = full_table(tmp_path)
    table.tell()
    table.document.update_part(1, key(), box=Box(6, 5, 25, 30))
    table.document.classify(1, 2)
    table.tell((1, key()))
    table.document.remove(2)
    table.labels[table.labels == 2] = 0
    table.tell()
    table.document.set_class(3, "mitosis")
    table.draw((2, 50, 20, 75), z=1, class_id=3)
    table.tell((10, key(1)))
    table.journal.close()
    assert_same_objects(only(tmp_path).read(), table)


def test_an_object_that_lost_pixels_to_another_is_written_too(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.draw((5, 5, 30, 30))
    table.tell()
    table.draw((10, 10, 40, 40))
    table.tell((2, key()))
    table.document.remove(2)
    covered = (table.labels == 2) & table.document.part(1, key()).prediction.full(SHAPE[1:])
    table.labels[table.labels == 2] = 0
    table.labels[covered] = 1  # it shows again
    table.tell((2, key()))
    table.journal.close()
    assert_same_objects(only(tmp_path).read(), table)


def test_pixels_that_undo_changed_are_found(tmp_path: Path) -> None:
    table = full_table(tmp_path)
    table.tell()
    table.labels[0, 6:9, 6:20] = 0
    table.tell((4, key(1)), repainted=True)
    table.journal.close()
    assert_same_objects(only(tmp_path).read(), table)


def test_an_object_that_moved_to_another_plane_left_the_first(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.draw((5, 5, 30, 30))
    table.tell()
    table.labels[:] = 0
    table.document.move_part(1, key(), key(2))
    table.document.update_part(1, key(2), extent=None, prediction=None)
    table.document.predicted(1, key(2), prediction((5, 5, 30, 30), 1))
    table.labels[2, 5:30, 5:30][prediction((5, 5, 30, 30), 1).mask] = 1
    table.tell((1, key()), (1, key(2)))
    table.journal.close()
    assert_same_objects(only(tmp_path).read(), table)


def test_an_object_on_two_planes_has_a_line_for_each_and_only_what_changed_is_written(tmp_path: Path) -> None:
    table = Table(tmp_path)
    number = table.draw((5, 5, 30, 30))
    table.draw((8, 8, 20, 20), z=1, number=number)
    table.tell()
    size = table.journal.path.stat().st_size
    table.document.update_part(number, key(1), problem="no")
    table.tell((number, key(1)))
    fresh = table.journal.path.read_bytes()[size:]
    assert fresh.count(b"\n") == 1
    assert b'"score":0.5' in fresh
    table.document.classify(number, 4)
    table.tell()
    table.journal.close()
    left = only(tmp_path)
    assert (left.objects, left.unsaved) == (1, 1)
    found = left.read()
    assert_same_objects(found, table)
    assert found.objects[0].class_id == 4
    assert found.unsaved == {(number, key()), (number, key(1))}


def test_a_part_that_was_taken_away_leaves_the_others(tmp_path: Path) -> None:
    table = Table(tmp_path)
    number = table.draw((5, 5, 30, 30))
    table.draw((8, 8, 20, 20), z=1, number=number)
    table.tell()
    table.document.remove_part(number, key())
    table.labels[0] = 0
    table.tell((number, key()))
    table.journal.close()
    assert_same_objects(only(tmp_path).read(), table)


def test_a_class_that_changed_while_it_was_killed_is_the_one_written_last(tmp_path: Path) -> None:
    table = Table(tmp_path)
    number = table.draw((5, 5, 30, 30))
    table.draw((8, 8, 20, 20), z=1, number=number)
    table.tell()
    table.document.classify(number, 4)
    table.tell((number, key()))  # and never the other
    table.journal.close()
    [record] = only(tmp_path).read().objects
    assert record.class_id == 4


def test_masks_are_cropped_and_packed(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.draw((5, 5, 30, 30))
    table.document.update_part(1, key(), extent=Box(0, 0, *SHAPE[1:]))
    table.tell()
    [pixels] = _read_again(table, tmp_path)
    assert pixels.patch.mask.shape <= (25, 25)
    assert pixels.patch.mask[0].any()
    assert pixels.patch.mask[:, -1].any()
    assert table.journal.path.stat().st_size < 2500


def _read_again(table: Table, folder: Path) -> tuple:
    table.journal.close()
    return only(folder).read().pixels


def test_a_large_mask_takes_little_room_and_little_memory(tmp_path: Path) -> None:
    side = 6000
    rows, cols = np.ogrid[:side, :side]
    disc = (rows - 3000) ** 2 + (cols - 3000) ** 2 < 2900**2
    image = identity(np.zeros((1, side, side), np.uint8))
    table = Table(tmp_path, image)
    table.labels = disc[None].astype(np.int32)
    table.document.add(key(), Box(100, 100, 5900, 5900), 1)
    table.document.update_part(1, key(), extent=Box(0, 0, side, side))
    table.tell()
    table.journal.close()
    [left] = find_unsaved(tmp_path, image)
    [pixels] = left.read().pixels
    assert np.array_equal(pixels.patch.within(Box(0, 0, side, side)), disc)
    assert left.path.stat().st_size < 300_000


class TestExported:
    def test_a_journal_of_which_all_was_exported_is_gone(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.saved([part.key for part in table.document.parts()])
        table.journal.close()
        assert files(tmp_path) == []
        assert find_unsaved(tmp_path, identity()) == []

    def test_what_changed_since_counts_and_all_comes_back(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.saved([part.key for part in table.document.parts()])
        assert table.journal.unsaved == frozenset()
        table.tell()  # nothing new: nothing to save
        assert table.journal.unsaved == frozenset()
        table.document.classify(1, 2)
        table.tell((1, key()))
        assert table.journal.unsaved == {(1, key())}
        table.journal.close()
        left = only(tmp_path)
        assert (left.objects, left.unsaved) == (5, 1)
        assert_same_objects(left.read(), table)

    def test_an_emptied_document_leaves_nothing(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        for record in table.document:
            table.document.remove(record.id)
        table.tell((1, key()))
        table.journal.close()
        assert files(tmp_path) == []

    def test_nothing_is_on_disk_before_there_is_an_object(self, tmp_path: Path) -> None:
        table = Table(tmp_path / "journal")
        table.tell()
        table.document.set_class(2, "nucleus")
        table.tell()
        assert not (tmp_path / "journal").exists()
        table.journal.close()

    def test_a_kill_after_the_export_leaves_no_offer(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.saved([part.key for part in table.document.parts()])
        killed(table)
        assert find_unsaved(tmp_path, identity()) == []
        assert files(tmp_path) == []


def killed(table: Table) -> None:
    """What a kill leaves of a journal: the file as it is, the lock free."""
    assert table.journal._lock is not None
    table.journal._give_up()
    table.journal._lock.release()


class TestDamage:
    def test_cut_off_anywhere_it_reads_up_to_there(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.draw((2, 50, 20, 75), z=1)
        table.tell((10, key(1)))
        table.journal.close()
        path = table.journal.path
        whole = path.read_bytes()
        header = whole.index(b"\n") + 1
        ends = [header + n for n, byte in enumerate(whole[header:], 1) if byte == ord("\n")]
        for length in sorted({*range(header, len(whole), 97), *ends, *(end - 1 for end in ends)}):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(whole[:length])
            left = find_unsaved(tmp_path, identity())
            complete = whole[header:length].count(b"\n")
            if complete < 2:  # the classes come first
                continue
            found = left[0].read()
            torn = length not in (header, *ends)
            assert found.broken == torn
            parts = sum(len(record.parts) for record in found.objects)
            assert parts == whole[header : _last(ends, length)].count(b'{"part":')
            left[0].leave()

    @pytest.mark.parametrize(
        "line",
        [
            b"\x00" * 300 + b"\n",
            b"\n",
            b"garbage\n",
            b"00000000 {}\n",
            json_line({"part": 1}),
            json_line({"part": {"object_id": [1], "plane": 3}}),
            json_line({"part": {"object_id": -1}}),
            json_line({"part": {"object_id": 1, "plane": PLANE, "box": None}, "class": True}),
            json_line({"part": {"object_id": 1, "plane": PLANE, "extent": [0, 0, 9, 99]}, "class": 1}),
            json_line({"pixels": {"label": 1, "plane": PLANE, "patch": None}}),
            json_line({"pixels": {"label": 1, "plane": {**PLANE, "index": [7, None, None]}, "patch": NONE}}),
            json_line({"pixels": {"label": 1, "plane": PLANE, "patch": {**NONE, "mask": [9, 9, "eJw="]}}}),
            json_line(
                {"pixels": {"label": 1, "plane": PLANE, "patch": {**NONE, "mask": [10**9, 10**9, ""]}}}
            ),
            json_line({"pixels": {"label": 1, "plane": PLANE, "patch": {**NONE, "row": 61}}}),
            json_line({"pixels": {"label": 1, "plane": {**PLANE, "displayed": [2, 1]}, "patch": NONE}}),
            json_line({"pixels": {"label": 1, "plane": 5, "patch": NONE}}),
            json_line({"classes": 5}),
            json_line({"classes": [{"id": 1, "name": "a", "color": "javascript:"}]}),
            json_line({"gone": ["o1"]}),
            json_line({"saved": [[1]]}),
            json_line({"saved": 4}),
            json_line({"eval": "1"}),
            json_line({"x": 1}).replace(b"{", b"[" * 100_000),
        ],
    )
    def test_a_hostile_line_costs_at_most_what_it_is_about(self, tmp_path: Path, line: bytes) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.close()
        with open(table.journal.path, "ab") as stream:
            stream.write(line)
        found = only(tmp_path).read()
        assert found.broken == 1
        assert {2, 3, 4, 9} <= {record.id for record in found.objects}

    def test_a_compressed_bomb_is_not_unpacked(self, tmp_path: Path) -> None:
        import base64
        import zlib

        table = full_table(tmp_path)
        table.tell()
        table.journal.close()
        bomb = base64.b64encode(zlib.compress(bytes(200 * 2**20), 9)).decode()
        entry = {"pixels": {"label": 1, "plane": PLANE, "patch": {**NONE, "mask": [8, 8, bomb]}}}
        with open(table.journal.path, "ab") as stream:
            stream.write(json_line(entry))
        assert only(tmp_path).read().broken == 1

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x80\x04\x95" * 50,
            b"not a journal\n",
            json_line({"format": "other", "version": 1}),
            json_line({"format": "napari-medsam journal", "version": 99}),
            json_line({"format": "napari-medsam journal", "version": 1, "image": 3}),
            b"[" * 200_000,
        ],
    )
    def test_foreign_files_are_passed_over(self, tmp_path: Path, content: bytes) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.close()
        foreign = table.journal.path.with_name(f"00-foreign{SUFFIX}")
        foreign.write_bytes(content)
        (table.journal.path.parent / f"folder{SUFFIX}").mkdir()
        assert_same_objects(only(tmp_path).read(), table)
        assert foreign.read_bytes() == content

    def test_a_write_that_failed_is_made_good_by_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = full_table(tmp_path)
        table.tell()

        class Full:
            def __init__(self, stream: object) -> None:
                self.stream = stream

            def write(self, data: bytes) -> None:
                self.stream.write(data[: len(data) // 2])
                self.stream.flush()
                raise OSError(28, "No space left on device")

            def close(self) -> None:
                self.stream.close()

        monkeypatch.setattr(table.journal, "_stream", Full(table.journal._stream))
        table.draw((2, 50, 20, 75), z=1)
        with pytest.raises(OSError, match="No space"):
            table.tell((10, key(1)))
        table.tell((1, key()))  # nothing new, but what failed is still to be written
        table.journal.close()
        found = only(tmp_path).read()
        assert found.broken == 0
        assert_same_objects(found, table)

    def test_it_does_not_grow_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal_module, "SLACK", 4096)
        table = full_table(tmp_path)
        table.tell()
        whole = table.journal.path.stat().st_size
        for number in range(60):
            table.document.classify(2, 1 + number % 2)
            table.tell((2, key()), (2, key(2)))
            assert table.journal.path.stat().st_size < 2 * whole + 8192
        table.journal.close()
        assert_same_objects(only(tmp_path).read(), table)


def _last(ends: list[int], length: int) -> int:
    return max((end for end in ends if end <= length), default=0)


class TestWhoseItIs:
    def test_another_image_of_the_same_name_and_shape_does_not_match(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.close()
        assert find_unsaved(tmp_path, identity(stack(1))) == []
        assert find_unsaved(tmp_path, identity(stack().astype(np.int16))) == []
        assert find_unsaved(tmp_path, identity(stack()[:2])) == []
        assert only(tmp_path).objects == 5

    def test_a_journal_put_in_another_images_place_does_not_match(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.close()
        other = identity(stack(1))
        place = table.journal.path.parent.with_name(other.key)
        place.mkdir()
        table.journal.path.rename(place / table.journal.path.name)
        assert find_unsaved(tmp_path, other) == []

    def test_one_that_is_being_written_is_not_offered(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        assert find_unsaved(tmp_path, identity()) == []
        table.journal.close()
        first = only(tmp_path)
        assert find_unsaved(tmp_path, identity()) == []  # another window offers it already
        first.leave()
        assert only(tmp_path).objects == 5

    def test_several_come_latest_first_and_go_one_by_one(self, tmp_path: Path) -> None:
        for number, age in ((1, 50), (2, 10), (3, 90)):
            table = Table(tmp_path)
            for _ in range(number):
                table.draw((5, 5, 30, 30))
            table.tell()
            table.journal.close()
            then = time.time() - age
            os.utime(table.journal.path, (then, then))
        found = find_unsaved(tmp_path, identity())
        assert [left.objects for left in found] == [2, 1, 3]
        for left in found:
            left.remove()
        assert files(tmp_path) == []

    def test_two_processes_on_one_image_leave_two_whole_journals(self, tmp_path: Path) -> None:
        writers = [start_writer(tmp_path, seed) for seed in (1, 2)]
        for writer in writers:
            wait_for_lines(writer, 40)
        for writer in writers:
            kill(writer)
        found = find_unsaved(tmp_path, identity())
        assert len(found) == 2
        for left in found:
            assert left.read().broken <= 1


class TestAge:
    def test_old_ones_go_and_those_in_use_stay(self, tmp_path: Path) -> None:
        tables = [full_table(tmp_path) for _ in range(3)]
        for table in tables:
            table.tell()
        old = time.time() - 40 * 86400
        for table in tables[:2]:
            os.utime(table.journal.path, (old, old))
        tables[0].journal.close()
        tables[2].journal.close()
        assert prune(tmp_path) == 1
        assert not tables[0].journal.path.exists()
        assert tables[1].journal.path.exists()
        assert tables[2].journal.path.exists()
        tables[1].journal.close()

    def test_over_the_cap_the_oldest_go(self, tmp_path: Path) -> None:
        tables = [full_table(tmp_path) for _ in range(3)]
        for age, table in enumerate(tables):
            table.tell()
            table.journal.close()
            then = time.time() - 1000 * age
            os.utime(table.journal.path, (then, then))
        size = tables[0].journal.path.stat().st_size
        assert prune(tmp_path, most_bytes=2 * size + 10) == 1
        assert [table.journal.path.exists() for table in tables] == [True, True, False]

    def test_what_killed_writers_left_beside_is_swept(self, tmp_path: Path) -> None:
        table = full_table(tmp_path)
        table.tell()
        table.journal.close()
        place = table.journal.path.parent
        old = time.time() - 2 * 86400
        for name in ("x.lock", ".x.jsonl-123456.tmp"):
            (place / name).touch()
            os.utime(place / name, (old, old))
        prune(tmp_path)
        assert files(tmp_path) == sorted(
            [table.journal.path.name, table.journal.path.with_suffix(".lock").name]
        )

    def test_a_folder_that_is_not_there_has_nothing(self, tmp_path: Path) -> None:
        assert prune(tmp_path / "none") == 0
        assert find_unsaved(tmp_path / "none", identity()) == []


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPARI_MEDSAM_JOURNAL", str(tmp_path))
    assert journal_folder() == tmp_path
    monkeypatch.delenv("NAPARI_MEDSAM_JOURNAL")
    assert journal_folder().name == "journal"


# a process that is killed -------------------------------------------------------------------------------------

WRITER = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from journal_desk import Table, prediction, key
table = Table(Path({folder!r}))
for number in range(1, 100000):
    seed = {seed} * 1000000 + number
    box = (seed % 20, seed % 30, 30 + seed % 25, 40 + seed % 35)
    object_id = table.draw(box, z=number % 3, class_id=number % 4 + 1) if number < 40 else number % 39 + 1
    if number >= 40:
        table.document.classify(object_id, number % 5 + 1)
        table.document.update_part(object_id, key(object_id % 3), problem=str(number))
    table.tell((object_id, key(object_id % 3)))
    print(number, flush=True)
"""


def start_writer(folder: Path, seed: int) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parent), folder=str(folder), seed=seed)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_for_lines(writer: subprocess.Popen[str], count: int) -> int:
    assert writer.stdout is not None
    for _ in range(count):
        line = writer.stdout.readline()
        assert line, "the writer died"
    return int(line)


def kill(writer: subprocess.Popen[str]) -> int:
    """Kill it at once; gives the last change that it said was written."""
    writer.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    rest, _ = writer.communicate()
    said = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    return said[-1] if said else 0


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment_all_that_was_written_comes_back(tmp_path: Path, seed: int) -> None:
    writer = start_writer(tmp_path, seed)
    last = wait_for_lines(writer, random.Random(seed).randint(1, 120))
    time.sleep(random.Random(seed + 100).random() * 0.05)
    last = max(last, kill(writer))
    found = only(tmp_path).read()
    assert found.broken <= 1
    records: dict[int, ObjectRecord] = {record.id: record for record in found.objects}
    assert set(range(1, min(last, 39) + 1)) <= set(records)
    for number in range(max(40, last - 38), last + 1):  # the newest change of each object
        record = records[number % 39 + 1]
        [part] = record.parts.values()
        assert part.problem is not None
        assert int(part.problem) >= number
    assert {pixels.label for pixels in found.pixels} <= set(records) | {last + 1}


def test_a_journal_in_use_cannot_be_taken_by_another_process(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, 3)
    wait_for_lines(writer, 3)
    assert find_unsaved(tmp_path, identity()) == []
    kill(writer)
    assert len(find_unsaved(tmp_path, identity())) == 1


def test_a_journal_of_its_own_for_each(tmp_path: Path) -> None:
    assert Journal(tmp_path, identity()).path != Journal(tmp_path, identity()).path
