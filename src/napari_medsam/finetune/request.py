"""What is asked of a training run, as it is kept in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.finetune.config import FinetuneConfig

REQUEST_NAME = "request.json"
LOCK_NAME = "at_work.lock"


@dataclass(frozen=True)
class TrainingRequest:
    """A decoder to be trained.

    dataset: folder of cases. name: of the decoder; a number is added when it is taken. base: the model whose encoder
    is used and with whose own decoder training starts. current: the model or decoder in use, which the new one has
    to beat. split: a table of the cases' sides, see `curation.split.read_split`; None divides them by group.
    output: the decoder file; None puts it among the user's decoders.
    """

    dataset: Path
    name: str
    base: str = "lite-medsam"
    current: str = "lite-medsam"
    config: FinetuneConfig = dataclass_field(default_factory=FinetuneConfig)
    device: str = "auto"
    split: Path | None = None
    output: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `from_json` takes them; paths made absolute."""
        paths = {"dataset": self.dataset, "split": self.split, "output": self.output}
        return {
            "name": self.name,
            "base": self.base,
            "current": self.current,
            "device": self.device,
            "config": self.config.to_json(),
            **{key: None if path is None else str(path.absolute()) for key, path in paths.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingRequest:
        """The request of plain values. Raises CaseError when they are none."""
        try:
            return cls(
                dataset=Path(data["dataset"]),
                name=str(data["name"]),
                base=str(data["base"]),
                current=str(data["current"]),
                config=FinetuneConfig.from_json(data["config"]),
                device=str(data["device"]),
                split=None if data["split"] is None else Path(data["split"]),
                output=None if data["output"] is None else Path(data["output"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CaseError(f"The training request cannot be read ({error!r}). Start a new run.") from error


def write_request(folder: Path, request: TrainingRequest) -> None:
    """Keep a request in a run's folder, which is made. Raises CaseError when that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / REQUEST_NAME) as stream:
            stream.write(json.dumps(request.to_json(), indent=1).encode())
    except OSError as error:
        raise CaseError(f"The run's folder {folder} cannot be written ({error}). Free some space.") from error


def request_of(folder: Path) -> TrainingRequest:
    """The request that a run's folder keeps. Raises CaseError when there is none to read."""
    path = folder / REQUEST_NAME
    try:
        return TrainingRequest.from_json(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise CaseError(f"{path} cannot be read ({error}). Start a new run.") from error


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Hold a run's folder while it is worked on; a process that dies lets go. Raises CaseError when another has it."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK_NAME, timeout=0):
            yield
    except Timeout as error:
        raise CaseError(f"Another process trains in {folder}. Wait until it has ended.") from error


def is_at_work(folder: Path) -> bool:
    """Whether a process works on a run's folder now."""
    if not (folder / LOCK_NAME).exists():
        return False
    try:
        with at_work(folder):
            return False
    except CaseError:
        return True
