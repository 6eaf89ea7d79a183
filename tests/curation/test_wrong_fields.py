"""A sidecar or manifest of wrong types is refused with the file and the path of the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_medsam.curation.case import Case
from napari_medsam.curation.case_files import read_case, write_case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.curation.formats.sidecar import read_sidecar
from napari_medsam.curation.manifest import read_manifest
from napari_medsam.errors import CaseError

MakeCase = Callable[..., Case]
Change = Callable[[dict[str, Any]], object]


def changed(path: Path, change: Change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["objects"][2].update(box=[0, 1, "2", 3]), r"objects\[2\]\.box\[2\] should be a valid number"),
        (lambda d: d["objects"][1].update(label=True), r"objects\[1\]\.label should be a valid integer, not True"),
        (lambda d: d["objects"][0].pop("corrected"), r"objects\[0\]\.corrected is missing"),
        (lambda d: d["objects"][0].update(prompts={"points": [[1, 2]]}), r"objects\[0\]\.prompts\.points\[0\]\[2\]"),
        (lambda d: d.update(spacing=[1, float("nan")]), r"spacing\[1\] should be a finite number"),
        (lambda d: d["source"].update(index=[1, "x", None]), r"source\.index\[1\] should be a valid integer"),
        (lambda d: d["contrast"].update(limits=[[0, 1], [0]]), r"contrast\.limits\[1\]\[1\] is missing"),
        (lambda d: d["model"].update(precision=16), r"model\.precision should be a valid string, not 16"),
        (lambda d: d["classes"][0].update(name=None), r"classes\[0\]\.name should be a valid string"),
        (lambda d: d.pop("image_sha256"), "image_sha256 is missing"),
        (lambda d: d.update(group=3), "group should be a valid string, not 3"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_sidecar(make_case: MakeCase, tmp_path: Path, change: Change, said: str) -> None:
    path = write_case(tmp_path, make_case())
    changed(path.with_suffix(".json"), change)
    for read in (read_case, read_sidecar):
        with pytest.raises(CaseError, match=said) as error:
            read(path)
        assert str(path.with_suffix(".json")) in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: d["cases"][1].update(objects="3"),
            r"cases\[1\]\.objects should be a valid integer, not '3'",
        ),
        (lambda d: d["cases"][0]["classes"].update({"1": None}), r"cases\[0\]\.classes\.1 should be"),
        (lambda d: d["cases"].append("x"), r"cases\[2\] should be an object, not 'x'"),
        (lambda d: d["classes"][1].pop("colour"), r"classes\[1\]\.colour is missing"),
        (lambda d: d.update(name=7), "name should be a valid string, not 7"),
    ],
)
def test_a_wrong_field_of_a_manifest(make_case: MakeCase, tmp_path: Path, change: Change, said: str) -> None:
    CuratedDataset(tmp_path, create=True).extend([make_case(0), make_case(1)])
    path = tmp_path / "dataset.json"
    assert len(read_manifest(path).cases) == 2
    changed(path, change)
    with pytest.raises(CaseError, match=said) as error:
        read_manifest(path)
    assert str(path) in str(error.value)


def test_what_another_program_wrote_beside_a_record_is_kept_and_counts(
    make_case: MakeCase, tmp_path: Path
) -> None:
    path = write_case(tmp_path / "a", make_case())
    data = json.loads(path.with_suffix(".json").read_text())
    case = read_case(path)
    assert case.contrast.more == {"window": [-160.0, 240.0]} == {"window": data["contrast"]["window"]}
    assert write_case(tmp_path / "b", case).name == path.name
    changed(path.with_suffix(".json"), lambda d: d["contrast"].update(window=[0, 1]))
    with pytest.raises(CaseError, match="content hash"):
        read_case(path)


def test_a_file_name_of_another_encoding_comes_back(make_case: MakeCase, tmp_path: Path) -> None:
    """Such names have half characters in Python; a case of such a file must not be lost."""
    case = make_case()
    path = write_case(
        tmp_path, make_case(source=type(case.source)("cells", "/data/f\udcff.tif"), group="f\udcff")
    )
    assert read_case(path).source.path == "/data/f?.tif"
