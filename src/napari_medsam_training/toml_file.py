"""Settings that somebody wrote as TOML, as a dataclass."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

from napari_medsam.errors import CaseError
from napari_medsam.records import from_plain

T = TypeVar("T")


def read_toml(type_: type[T], path: Path, example: str) -> T:
    """The `type_` that a file says. Raises CaseError naming the file and what in it is wrong or unknown.

    example: where somebody sees what such a file holds.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        for name in _unknown(type_, data):
            raise ValueError(f"there is no setting {name}")
        return from_plain(type_, data, path.stem)
    except (OSError, ValueError) as error:
        raise CaseError(f"{path} cannot be read ({error}). See {example}.") from error


def read_settings(path: Path) -> dict[str, object]:
    """The settings of a training run, for `FinetuneConfig.from_json`. Raises CaseError when they cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CaseError(f"The settings {path} cannot be read ({error}). Give a TOML file.") from error


def _unknown(type_: type, data: Mapping[str, object]) -> Iterator[str]:
    """Names that a dataclass, or one in a list of it, does not have: most often a slip of the pen."""
    hints = get_type_hints(type_)
    for name, value in data.items():
        if name not in hints:
            yield name
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Mapping):
                    yield from _unknown(get_args(hints[name])[0], item)
