"""What is asked of a training run, as it is kept in the run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_medsam.errors import CaseError
from napari_medsam.files import replacing
from napari_medsam.finetune.config import FinetuneConfig
from napari_medsam.records import from_json, to_json

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
    config: FinetuneConfig = field(default_factory=FinetuneConfig)
    device: str = "auto"
    split: Path | None = None
    output: Path | None = None

    def absolute(self) -> TrainingRequest:
        """The same with absolute paths, for a process that may stand in another folder."""
        split, output = (path and path.absolute() for path in (self.split, self.output))
        return replace(self, dataset=self.dataset.absolute(), split=split, output=output)


def write_request(folder: Path, request: TrainingRequest) -> None:
    """Keep a request in a run's folder, which is made. Raises CaseError when that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / REQUEST_NAME) as stream:
            stream.write(to_json(request.absolute(), indent=1).encode())
    except OSError as error:
        raise CaseError(f"The run's folder {folder} cannot be written ({error}). Free some space.") from error


def request_of(folder: Path) -> TrainingRequest:
    """The request that a run's folder keeps. Raises CaseError when there is none to read."""
    path = folder / REQUEST_NAME
    try:
        return from_json(TrainingRequest, path.read_bytes())
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
