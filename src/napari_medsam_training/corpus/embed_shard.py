"""One shard of cases to their embeddings, boxes and targets."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from napari_medsam.curation.case_files import read_case
from napari_medsam.embedding.embed import FieldRequest, embed
from napari_medsam.errors import CaseError, ImageError
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.finetune.samples import Sample, samples_of
from napari_medsam.image.contrast import Contrast
from napari_medsam.image.field import Field
from napari_medsam.model.api import EncoderModel
from napari_medsam.model.runtime.memory import keep_freed_memory
from napari_medsam.segment.fields import FieldPolicy
from napari_medsam_training.corpus.store import SampleName, ShardAbout, ShardWriter, shard_path


class Choice(Protocol):
    """A model by name: small, hashable, and loaded where the work is done."""

    def __hash__(self) -> int: ...

    def load(self) -> EncoderModel: ...
    def identity(self) -> list[object]: ...


@dataclass(frozen=True)
class ModelChoice:
    """One of the package's models, or a checkpoint file."""

    name: str
    device: str = "auto"

    def load(self) -> EncoderModel:
        from napari_medsam.model.local import build_model

        return build_model(self.name, self.device)

    def identity(self) -> list[object]:
        """What embeddings depend on, as far as it can be told without loading."""
        path = Path(self.name)
        stamp = [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []
        return [self.name, self.device, *stamp]


@dataclass(frozen=True)
class EmbedTask:
    """A shard: the cases, the model, and where it is written. config: detail and views count."""

    dataset: str
    stems: tuple[str, ...]
    store: str
    name: str
    model: Choice
    config: FinetuneConfig


@functools.lru_cache(maxsize=1)
def loaded(choice: Choice) -> EncoderModel:
    """A model, loaded once in each process: a worker embeds many shards with it."""
    return choice.load()


def embed_shard(task: EmbedTask) -> None:
    """Embed a shard's cases one after the other.

    Each object is seen on the field that will answer its box, as in retraining; a field that several share is
    embedded once. A case that cannot be read is named in the shard. Raises ModelError where the encoder fails, and
    OSError where the store cannot be written.
    """
    keep_freed_memory()  # Dask has its workers give it all back at once
    model = loaded(task.model)
    about = ShardAbout(model.name, model.encoder_hash, model.precision)
    left: list[tuple[str, str]] = []
    with ShardWriter(shard_path(Path(task.store), task.name), about) as writer:
        for stem in task.stems:
            try:
                case = read_case(Path(task.dataset, f"{stem}.npz"), predictions=False)
                samples = samples_of(case, stem, task.config, model.frame, FieldPolicy(), task.config.views)
            except (CaseError, ImageError) as error:
                left.append((stem, str(error).replace(f"{task.dataset}/", "")))
                continue
            _write(writer, model, samples)
        writer.about = replace(about, left_out=tuple(left))


def _write(writer: ShardWriter, model: EncoderModel, samples: list[Sample]) -> None:
    numbers: dict[tuple[int, Field], int] = {}
    for sample in samples:
        field = sample.field
        place = (id(sample.image), field)
        if place not in numbers:
            found = embed(model, None, FieldRequest(sample.image, Contrast(), field))
            numbers[place] = writer.field((field.row, field.col, field.height, field.width), found.features)
        name = SampleName(sample.case, sample.plane, sample.label, sample.class_name, sample.group)
        box = (sample.box.r0, sample.box.c0, sample.box.r1, sample.box.c1)
        writer.sample(name, numbers[place], box, sample.target)
