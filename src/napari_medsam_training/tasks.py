"""What a report compares: sets with a target and a modality, and models. Read from a TOML file.

    seed = 0
    device = "auto"

    [[model]]                       # the first is "ours"; the table's differences are taken from the others
    title = "ours"
    source = "ours.safetensors"     # a decoder file, a checkpoint file, or a model's name

    [[model]]
    title = "released"
    source = "lite-medsam"

    [[task]]
    name = "polyp_kvasir"
    dataset = "datasets/polyp_kvasir"
    modality = "Endoscopy"
    target = "Polyp"
    side = "internal"               # or "external": nothing of the set was trained on by the models above
    split = "splits/polyp.csv"      # optional; else DATASET/split.csv, else by group and seed
    unet = "unets/polyp.safetensors"  # optional, of training/baselines.py

Paths are relative to the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_medsam.errors import CaseError, CheckpointError, ModelError
from napari_medsam.model.catalogue import ModelSpec
from napari_medsam.model.checkpoint import is_available
from napari_medsam.model.names import find_model
from napari_medsam_training.toml_file import read_toml

Side = Literal["internal", "external"]
UNET = "U-Net"


@dataclass(frozen=True)
class Entrant:
    """A model in the comparison: its title in the tables, and what `find_model` finds it by."""

    title: str
    source: str


@dataclass(frozen=True)
class Task:
    """A dataset of cases, judged on its test cases."""

    name: str
    dataset: Path
    modality: str
    target: str
    side: Side
    split: Path | None = None
    unet: Path | None = None


@dataclass(frozen=True)
class Comparison:
    """All that a report compares."""

    models: tuple[Entrant, ...]
    tasks: tuple[Task, ...]
    seed: int = 0
    device: str = "auto"

    @property
    def titles(self) -> tuple[str, ...]:
        """The columns of the tables: the models, and the U-Net where a task has one."""
        unet = (UNET,) if any(task.unet is not None for task in self.tasks) else ()
        return (*(model.title for model in self.models), *unet)


@dataclass(frozen=True)
class _File:
    model: tuple[Entrant, ...]
    task: tuple[Task, ...]
    seed: int = 0
    device: str = "auto"


def read_comparison(path: Path) -> Comparison:
    """Read a TOML file as described above. Raises CaseError when it cannot be read, or names something twice."""
    data = read_toml(_File, path, "napari_medsam_training/tasks.py for what it holds")
    models = tuple(_entrant(entrant, path.parent) for entrant in data.model)
    comparison = Comparison(
        models, tuple(_task(task, path.parent) for task in data.task), data.seed, data.device
    )
    for what, names in (("model", [*comparison.titles]), ("task", [task.name for task in comparison.tasks])):
        if len(set(names)) < len(names) or not names:
            raise CaseError(f"{path}: the {what}s are {names}. Name at least one, and each once.")
    return comparison


def present(comparison: Comparison) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison with the models that are at hand, and a line for each that is not: nothing is downloaded.

    Raises ModelError when the first model, ours, is missing.
    """
    found, lines = [], []
    for model in comparison.models:
        missing = _missing(model)
        if missing is None:
            found.append(model)
        else:
            lines.append(missing)
    if not found or found[0] is not comparison.models[0]:
        raise ModelError(f"{lines[0]} A report needs its first model.")
    return Comparison(tuple(found), comparison.tasks, comparison.seed, comparison.device), tuple(lines)


def _missing(model: Entrant) -> str | None:
    try:
        spec = find_model(model.source)
    except CheckpointError as error:
        return f"{model.title} is left out: {error}"
    if spec.decoder is None and spec.path is None and not is_available(spec):
        return f"{model.title} is left out: {_where(spec)}"
    return None


def _where(spec: ModelSpec) -> str:
    size = f"{(spec.size or 0) / 1e6:.0f} MB"
    return f"put {spec.file_name} ({size}, {spec.url}) into the folder that `napari-medsam models` prints."


def _entrant(entrant: Entrant, folder: Path) -> Entrant:
    beside = folder / entrant.source
    return replace(entrant, source=str(beside)) if beside.is_file() else entrant


def _task(task: Task, folder: Path) -> Task:
    dataset = folder / task.dataset
    split = dataset / "split.csv" if task.split is None else folder / task.split
    return replace(
        task,
        dataset=dataset,
        split=split if task.split is not None or split.is_file() else None,
        unet=None if task.unet is None else folder / task.unet,
    )
