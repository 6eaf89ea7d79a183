"""Boxes and clicks on the command line, and the objects they describe."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable

from napari_medsam.errors import PromptError
from napari_medsam.geometry import Box
from napari_medsam.segment.prompt import Point, Prompt

SIGNS = {"+": True, "-": False}


def numbers(text: str, kind: type) -> tuple[int | float, ...]:
    """Numbers separated by commas. Raises ArgumentTypeError, as all readers here do."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers separated by commas") from None


def box(text: str) -> Box:
    """R0,C0,R1,C1."""
    edges = numbers(text, float)
    if len(edges) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a box: give four numbers R0,C0,R1,C1")
    return Box(*edges)


def point(text: str) -> Point:
    """R,C,+ or R,C,-."""
    place, _, sign = text.rpartition(",")
    complaint = argparse.ArgumentTypeError(
        f"{text!r} is not a click: give R,C,+ on the object or R,C,- beside it"
    )
    if sign not in SIGNS:
        raise complaint
    at = numbers(place, float)
    if len(at) != 2 or not all(map(math.isfinite, at)):
        raise complaint
    return Point(float(at[0]), float(at[1]), SIGNS[sign])


def prompts_of(parts: Iterable[Box | Point], shape: tuple[int, int]) -> list[Prompt]:
    """The objects meant by boxes and clicks in the order they were given, on a plane of shape (H, W).

    Each box begins an object, and the clicks after it are about that one; clicks before the first box describe an
    object of their own. Raises PromptError naming the object by its number.
    """
    objects: list[Prompt] = []
    for part in parts:
        if isinstance(part, Box):
            objects.append(Prompt(part))
        elif objects:
            objects[-1] = Prompt(objects[-1].box, (*objects[-1].points, part))
        else:
            objects.append(Prompt(None, (part,)))
    checked = []
    for number, prompt in enumerate(objects, start=1):
        try:
            checked.append(prompt.check(shape))
        except PromptError as error:
            raise PromptError(f"Object {number}: {error}") from error
    return checked
