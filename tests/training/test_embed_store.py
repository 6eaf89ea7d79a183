"""The sharded store: what training reads of it, restarts, workers, what a dataset's changes cost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embed_child import Fake
from fake_medsam import FakeMedSAM
from PIL import Image
from training_files import disc, folders, grey, run_curate, save_nifti

from napari_medsam.curation.dataset import CuratedDataset
from napari_medsam.embedding.embed import FieldRequest
from napari_medsam.embedding.embed import embed as embed_field
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.samples import samples_of
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Frame
from napari_medsam.segment.fields import FieldPolicy
from napari_medsam_training import embed
from napari_medsam_training.corpus.store import EmbeddingStore, Shard


class FailingOnce:
    """Encodes so often, then fails, as a worker that dies would."""

    def __init__(self, times: int) -> None:
        self.times = times

    def identity(self) -> list[Any]:
        return ["fake"]

    def load(self) -> FakeMedSAM:
        model = FakeMedSAM()
        encode = model.encode

        def limited(prepared: np.ndarray) -> Any:
            self.times -= 1
            if self.times < 0:
                raise KeyboardInterrupt
            return encode(prepared)

        model.encode = limited  # type: ignore[method-assign]
        return model


def curated(root: Path, count: int = 12) -> Path:
    images, masks, dataset = folders(root)
    for number in range(count):
        mask = disc((70, 90), 8, (20, 20)) + 2 * disc((70, 90), 9, (45, 60 + number % 5)).astype("u1")
        Image.fromarray(grey(number, mask > 0)).save(images / f"case-{number:02d}.png")
        Image.fromarray(mask.astype("u1")).save(masks / f"case-{number:02d}.png")
    ball = disc((40, 44, 6), 9)
    save_nifti(images / "volume.nii.gz", grey(1, ball, "i2"))
    save_nifti(masks / "volume.nii.gz", ball.astype("u1"))
    assert run_curate(root, "--per", "instance") == 0
    return dataset


def run(dataset: Path, store: Path, *more: str, model: Any = None) -> int:
    return embed.main([str(dataset), str(store), "--shard-size", "3", "--quiet", *more], model or Fake())


def snapshot(store: Path) -> dict[str, bytes]:
    return {
        p.relative_to(store).as_posix(): p.read_bytes()
        for p in sorted(store.rglob("*"))
        if p.is_file() and p.suffix != ".lock"
    }


def test_training_reads_what_retraining_would_make(tmp_path: Path) -> None:
    dataset = curated(tmp_path)
    assert run(dataset, tmp_path / "store") == 0
    store = EmbeddingStore(tmp_path / "store")
    stored = {(s.name.case, s.name.plane, s.name.label): s for shard in store.shards() for s in shard}
    samples = []
    for stem in CuratedDataset(dataset).cases:
        case = CuratedDataset(dataset)[stem]
        samples += samples_of(case, stem, FinetuneConfig(), Frame(), FieldPolicy())
    assert len(samples) == len(stored) == 2 * 12 + 6
    for sample in samples:
        found = stored[sample.case, sample.plane, sample.label]
        wanted = embed_field(FakeMedSAM(), None, FieldRequest(sample.image, Contrast(), sample.field))
        np.testing.assert_array_equal(found.features, wanted.features)
        np.testing.assert_array_equal(found.target, sample.target)
        assert found.field == (sample.field.row, sample.field.col, sample.field.height, sample.field.width)
        assert found.box == pytest.approx([sample.box.r0, sample.box.c0, sample.box.r1, sample.box.c1])
        assert (found.name.class_name, found.name.group) == ("lesion", sample.group)
    fields = {(s.case, s.plane, s.field) for s in samples}
    assert sum(line.fields for line in store.about.shards) == len(fields)


def test_a_run_that_is_cut_short_repeats_one_shard_at_most(tmp_path: Path) -> None:
    dataset, store = curated(tmp_path), tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        run(dataset, store, model=FailingOnce(17))
    done = {path.name: path.stat().st_mtime_ns for path in (store / "shards").glob("*.zarr")}
    assert done
    assert not (store / "store.json").exists()
    counting = FailingOnce(10**6)
    assert run(dataset, store, model=counting) == 0
    shards = list(EmbeddingStore(store).shards())
    assert {name: (store / "shards" / name).stat().st_mtime_ns for name in done} == done
    missing = sum(shard.fields for shard in shards if shard.path.name not in done)
    assert 10**6 - counting.times == missing
    assert not list((store / "shards").glob(".*"))
    whole = tmp_path / "whole"
    assert run(dataset, whole) == 0
    assert snapshot(store) == snapshot(whole)


def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    dataset = curated(tmp_path, 6)
    assert run(dataset, tmp_path / "one", "--shard-size", "2") == 0
    options = [str(dataset), str(tmp_path / "two"), "--shard-size", "2", "--quiet", "--workers", "2"]
    command = [sys.executable, str(Path(__file__).with_name("embed_child.py")), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(EmbeddingStore(tmp_path / "two").about.shards) > 1
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_a_case_that_is_added_or_broken_costs_its_shard_alone(tmp_path: Path) -> None:
    dataset, store = curated(tmp_path), tmp_path / "store"
    assert run(dataset, store) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    stem = CuratedDataset(dataset).cases[4]
    for suffix in (".npz", ".json"):
        (dataset / f"{stem}{suffix}").unlink()
    broken = CuratedDataset(dataset).cases[0]
    assert run(dataset, store) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    assert len(before.items() - after.items()) <= 2
    (dataset / f"{broken}.npz").write_bytes(b"PK")
    shutil.rmtree(store)
    assert run(dataset, store) == 0
    left = [entry for shard in EmbeddingStore(store).shards() for entry in shard.about.left_out]
    assert [stem for stem, _ in left] == [broken]


def test_a_folder_that_is_no_shard_or_dataset_is_refused(tmp_path: Path) -> None:
    import zarr

    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="is not a shard of version 1"):
        Shard(tmp_path / "other.zarr")
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "store") == 2


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path: Path) -> None:
    from napari_medsam.errors import CaseError
    from napari_medsam_training.corpus.engine import alone_in

    with alone_in(tmp_path), pytest.raises(CaseError, match="Another run is writing"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass
