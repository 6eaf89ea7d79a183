"""A write that is cut short at any step leaves no half case, and the next export mends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_medsam.curation.case import Case
from napari_medsam.curation.case_files import read_case, write_case
from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.errors import CaseError
from napari_medsam.files import replacing

MakeCase = Callable[..., Case]

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from conftest import build_case
from napari_medsam.curation.dataset import CuratedDataset
data = CuratedDataset(sys.argv[2])
calls, original = [], getattr(os, sys.argv[3])
def killed(*args, **kwargs):
    calls.append(args)
    if len(calls) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(os, sys.argv[3], killed)
data.append(build_case(5))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_at_any_step(make_case: MakeCase, tmp_path: Path, step: str, nth: int) -> None:
    """replace 1, 2, 3: before the .npz, the sidecar and the manifest take their names."""
    data = CuratedDataset(tmp_path, create=True)
    data.append(make_case(0))
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), step, str(nth)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    found = CuratedDataset(tmp_path)
    whole = step == "replace" and nth == 3
    assert len(found) == (2 if whole else 1)
    assert [case.imgs.size > 0 for case in found] == [True] * len(found)
    assert found.summary().cases == len(found)
    path = found.append(make_case(5))
    assert len(CuratedDataset(tmp_path)) == 2
    assert read_case(path).gts.max() == 3
    assert all(p.file.suffix == ".tmp" for p in found.validate()), found.validate()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_full_disk_leaves_nothing_and_says_so(
    make_case: MakeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    data = CuratedDataset(tmp_path, create=True)
    calls = []
    fsync = os.fsync

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == [1, 3, 5][nth - 1]:  # each file, then its folder
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CaseError, match="No space left on device"):
        data.append(make_case())
    monkeypatch.undo()
    found = CuratedDataset(tmp_path)
    assert len(found) == (1 if nth == 3 else 0)
    assert not list(tmp_path.glob(".*.tmp"))
    data.append(make_case())
    assert found.validate() == []


def test_a_npz_without_its_sidecar_is_no_case(make_case: MakeCase, tmp_path: Path) -> None:
    path = write_case(tmp_path, make_case())
    path.with_suffix(".json").unlink()
    with pytest.raises(CaseError, match="was interrupted"):
        read_case(path)
    data = CuratedDataset(tmp_path, create=True)
    assert len(data) == 0
    (problem,) = data.validate()
    assert "was interrupted" in problem.what
    data.append(make_case())
    assert data.validate() == []


def test_replacing_keeps_the_old_file_on_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def torn() -> None:
        with replacing(path) as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torn()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_can_be_read_and_says_no(make_case: MakeCase, tmp_path: Path) -> None:
    CuratedDataset(tmp_path, create=True).append(make_case())
    tmp_path.chmod(0o555)
    try:
        data = CuratedDataset(tmp_path)
        assert data[0].gts.any()
        with pytest.raises(CaseError):
            data.append(make_case(1))
    finally:
        tmp_path.chmod(0o755)
