"""Frozen dataclasses to JSON and back, with the field that is wrong named by its path ("objects[3].box[1]").

What a file or another process says is read by the types of a dataclass: whole numbers are no booleans, text is no
number, and numbers are finite. Keys that a dataclass does not have are ignored. A field whose name is a Python keyword
carries an underscore at its end, which the JSON key lacks; a field with the metadata "alias" has that key in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_STRICT = {"strict": True, "allow_inf_nan": False}


class Open:
    """A base of dataclasses whose JSON may hold more than they know: it goes to the field `more`, and nothing is lost.

    All fields have defaults, the last one is `more`. In JSON what is as by default is left out, and the entries of
    `more` stand beside the fields.
    """

    __pydantic_config__: ClassVar[Mapping[str, object]] = {**_STRICT, "extra": "allow"}
    more: Mapping[str, object]

    def __post_init__(self) -> None:
        names = {field.name for field in fields(self)}  # type: ignore[arg-type]
        unknown = [key for key in vars(self) if key not in names]  # pydantic leaves them as attributes
        found = {key: vars(self).pop(key) for key in unknown}
        if found:
            object.__setattr__(self, "more", found)


def from_json(type_: type[T], text: str | bytes) -> T:
    """The `type_` that a JSON text says. Raises ValueError naming the path of the first wrong field.

    Any type hint that pydantic knows will do; a dataclass's hints are resolved in its module, so the names must be
    imported there, not for the type checker alone. `__post_init__` is called, and what it raises passes through.
    """
    from pydantic import ValidationError

    adapter: TypeAdapter[T | None] = _adapter(type_)  # type: ignore[arg-type]  # a class is hashable
    try:
        found = adapter.validate_json(text)
    except ValidationError as error:
        if "lone" not in str(error.errors()[0]["msg"]):
            raise ValueError(_complaint(error)) from error
        return from_json(type_, _without_surrogates(text))
    if found is None:
        raise ValueError("it is null")
    return found


def from_plain(type_: type[T], data: object, name: str) -> T:
    """The `type_` that a mapping says, or that a record of the type will be read as once it was written.

    Raises ValueError with the wrong field's path, which begins with `name`.
    """
    text = json.dumps(plain(data, name))
    try:
        return from_json(type_, text)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error


def to_json(value: object, indent: int | None = None) -> str:
    """A value as JSON in ASCII, fields in their order. Raises ValueError as `plain` does."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def packed_json(value: object) -> bytes:
    """A dataclass as JSON by the types of its fields, where some have a form of their own: a packed mask, say."""
    kind: Any = type(value)
    return _adapter(kind).dump_json(
        value, by_alias=True, warnings="none", ensure_ascii=True, fallback=lambda number: number.item()
    )


def plain(value: object, name: str = "") -> Any:
    """A value as JSON gives it back: dataclasses as dicts, tuples as lists, numbers of NumPy and paths as plain ones.

    Raises ValueError with the path of what JSON cannot hold; `name` is the path of the value itself.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_record(value, name)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str | int) for key in value):
            raise ValueError(f"{name} has a key that is not text")
        return {str(key): plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{name}[{place}]") for place, entry in enumerate(value)]
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # NumPy's
        return plain(value.tolist(), name)
    raise ValueError(f"{name or 'the value'} is {value!r:.80}, which JSON cannot hold")


def _plain_record(value: Any, name: str) -> dict[str, Any]:
    dot = f"{name}." if name else ""
    members = {_key(field): (field, getattr(value, field.name)) for field in fields(value)}
    more = members.pop("more")[1] if isinstance(value, Open) else None
    told = {key: plain(member, dot + key) for key, (_, member) in members.items()}
    if more is None:
        return told
    changed = {
        key: told[key] for key, (field, _) in members.items() if told[key] != plain(field.default, key)
    }
    rest: dict[str, Any] = plain(more, name)
    return changed | rest


def _key(field: Field[Any]) -> str:
    return str(field.metadata.get("alias", field.name.rstrip("_")))


@cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    """Strict, and made once: it takes far longer than reading with it."""
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(**_STRICT, extra="ignore", alias_generator=lambda name: name.rstrip("_"))  # type: ignore[typeddict-item]
    return TypeAdapter(
        type_ | None, config=config
    )  # a bare dataclass may not be given a config, an optional one may


def _without_surrogates(text: str | bytes) -> bytes:
    """Half characters, as file names of another encoding have them, as question marks; pydantic refuses them."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if first["type"] == "missing":
        return f"{path} is missing"
    what = str(first["msg"])
    if not path:
        return what
    return f"{path} {what[0].lower() + what[1:]}, not {first['input']!r:.60}".replace(
        " input should", " should"
    )
