"""Who trains, who validates, who judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_medsam.curation.split import Split, read_split, side_of, split_cases
from napari_medsam.errors import CaseError


def groups_of(count: int, each: int = 2) -> dict[str, str | None]:
    return {f"case-{n}": f"group-{n // each}" for n in range(count)}


def role_of(split: Split) -> dict[str, str]:
    return {stem: role for role, stems in split.roles().items() for stem in stems}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 7, 10, 31, 64])
def test_no_group_is_on_two_sides_and_every_case_on_one(count: int, seed: int) -> None:
    groups = groups_of(count)
    split = split_cases(groups, seed)
    roles = role_of(split)
    assert sorted([*split.train, *split.val, *split.test]) == sorted(groups)
    sides: dict[str | None, set[str]] = {}
    for stem, group in groups.items():
        sides.setdefault(group, set()).add(roles[stem])
    assert split.by == ("case" if len(sides) == 1 else "group")
    if len(sides) > 1:
        assert all(len(found) == 1 for found in sides.values())
        assert split.test
    assert split.train
    assert bool(split.val) == (len(sides) >= 5)


def test_the_shares_are_about_as_asked() -> None:
    split = split_cases({f"c{n}": None for n in range(100)}, shares=(0.15, 0.25))
    assert [len(split.train), len(split.val), len(split.test)] == [60, 15, 25]


def test_it_depends_on_names_and_seed_alone() -> None:
    groups = groups_of(20)
    assert split_cases(groups, 3) == split_cases(dict(reversed(groups.items())), 3)
    assert len({split_cases(groups, seed).test for seed in range(6)}) > 3


def test_an_added_case_moves_few_others() -> None:
    groups: dict[str, str | None] = {f"c{n}": None for n in range(40)}
    for added in range(10):
        before = role_of(split_cases(groups))
        groups[f"added-{added}"] = None
        after = role_of(split_cases(groups))
        assert sum(before[stem] != after[stem] for stem in before) <= 3


def test_a_case_added_to_a_group_moves_no_other() -> None:
    groups = groups_of(20)
    before = role_of(split_cases(groups))
    after = role_of(split_cases({**groups, "late": "group-4"}))
    assert {stem: after[stem] for stem in before} == before
    assert after["late"] == after["case-8"]


def test_one_group_is_divided_by_case_and_says_so() -> None:
    split = split_cases(dict.fromkeys(("a", "b", "c", "d"), "patient"))
    assert split.by == "case"
    assert len(split.test) == 1
    assert len(split.train) == 3


def test_one_case_trains_and_nobody_judges() -> None:
    assert split_cases({"a": "patient"}) == Split(("a",), (), (), "group")


def test_no_cases() -> None:
    with pytest.raises(CaseError, match="no cases"):
        split_cases({})


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "split.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("header", ["", "stem,role\n", "case,side\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_is_read_with_or_without_a_header(tmp_path: Path, header: str, encoding: str) -> None:
    path = table(tmp_path, f"{header}a,train\n b.npz , val\n\nc,test\nd,train\n", encoding)
    assert read_split(path, ["a", "b", "c", "d", "e"]) == Split(("a", "d"), ("b",), ("c",), "table")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,trian\nb,train\n", "line 1: 'a,trian'"),  # a slip, not a header
        ("stem,role\na,train\n\nb,judge\n", "line 4: 'b,judge'"),
        ("a,train\nb\n", "line 2: 'b'"),
        ("a,train\nz,test\n", "1 cases that are not in the dataset, 'z'"),
        ("a,train\nb,test\na.npz,test\n", "line 3: 'a' comes a second time"),
        ("a,test\nb,val\n", "no case to train on"),
        ("stem,role\n", "no case to train on"),
        ("", "no case to train on"),
    ],
)
def test_a_bad_table_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(CaseError, match=said) as caught:
        read_split(path, ["a", "b", "c"])
    assert str(path) in str(caught.value)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"no\.csv cannot be read"):
        read_split(tmp_path / "no.csv", ["a"])
    (tmp_path / "latin.csv").write_bytes(b"a,train\n\xff,test\n")
    with pytest.raises(CaseError, match="cannot be read"):
        read_split(tmp_path / "latin.csv", ["a"])


def test_a_side_by_name_never_moves_and_has_about_its_share() -> None:
    sides = [side_of(f"patient-{n}") for n in range(4000)]
    counts = {role: sides.count(role) for role in ("train", "val", "test")}
    assert abs(counts["val"] - 400) < 80
    assert abs(counts["test"] - 400) < 80
    assert sides != [side_of(f"patient-{n}", seed=1) for n in range(4000)]
    # Another version that moves these would put cases that were trained on among those that judge.
    known = {
        "patient-0": "train",
        "patient-1": "val",
        "patient-15": "val",
        "patient-14": "test",
        "patient-16": "test",
    }
    assert {group: side_of(group) for group in known} == known
    with pytest.raises(CaseError, match="leave no group to train on"):
        side_of("a", shares=(0.5, 0.5))
