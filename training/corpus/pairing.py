"""Which mask belongs to which image: by name, by a rule for names, or by what a DICOM segmentation refers to."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from corpus.left_out import Left
from corpus.sources import Source

_ENDING = re.compile(
    r"[_-](masks?|seg|segmentations?|labels?|gt|ground_?truth|images?|img|0000)$", re.IGNORECASE
)
_MASK_ENDING = re.compile(r"[_-](masks?|seg|segmentations?|labels?|gt|ground_?truth)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask. key: the image's; group: what stays on one side of a split, None for the pair itself."""

    key: str
    image: Source
    mask: Source
    group: str | None = None


def pair_up(
    images: Iterable[Source], masks: Iterable[Source], rule: re.Pattern[str] | None = None
) -> tuple[list[Pair], list[Left]]:
    """Pair images with masks, sorted by key; and everything that found no partner or too many.

    A DICOM segmentation goes to the series it refers to. Others match by their path without suffix, then by the same
    without an ending such as _mask, _seg or _0000. rule: takes the place of both: what its groups (or it) match of
    the path must be equal. Where a name stands for several images or masks, none of them is taken.
    """
    images, masks = list(images), list(masks)
    by_uid = {image.uid: image.key for image in images if image.uid}
    own = [by_uid.get(mask.uid, mask.key) if mask.kind == "seg" else mask.key for mask in masks]
    left: list[Left] = []
    names = [lambda key: _by_rule(rule, key)] if rule else [lambda key: key, lambda key: _ENDING.sub("", key)]
    pairs: list[Pair] = []
    todo_images = [(image.key, image) for image in images]
    todo_masks = list(zip(own, masks, strict=True))
    for name in names:
        first, second = _named(todo_images, name), _named(todo_masks, name)
        for key in sorted(set(first) & set(second), key=str):
            if key is None:
                continue
            candidates, partners = first.pop(key), second.pop(key)
            if len(candidates) == len(partners) == 1:
                pairs.append(Pair(candidates[0][1].key, candidates[0][1], partners[0][1]))
            else:
                left += _ambiguous(candidates, partners)
        todo_images = [entry for entries in first.values() for entry in entries]
        todo_masks = [entry for entries in second.values() for entry in entries]
    left += [Left(i.name, "no-mask", "No mask has this image's name.") for _, i in todo_images]
    left += [Left(m.name, "no-image", "No image has this mask's name.", "masks") for _, m in todo_masks]
    return sorted(pairs, key=lambda pair: pair.key), left


def apart(sources: Iterable[Source]) -> tuple[list[Source], list[Source]]:
    """(images, masks) of one folder that holds both: masks are DICOM segmentations and names that end like masks."""
    images, masks = [], []
    for source in sources:
        is_mask = source.kind == "seg" or _MASK_ENDING.search(source.key) is not None
        (masks if is_mask else images).append(source)
    return images, masks


def grouped(
    pairs: Iterable[Pair], rule: re.Pattern[str] | None, table: Mapping[str, str] | None
) -> tuple[list[Pair], list[Left]]:
    """Give each pair its group: from a table, else by what a rule matches of the key, else by its DICOM patient.

    A pair that the table or the rule says nothing about is left out: alone in a group of its own it might leak.
    """
    kept, left = [], []
    for pair in pairs:
        if table is not None:
            group = table.get(pair.key, table.get(pair.key.rpartition("/")[2]))
        elif rule is not None:
            group = _by_rule(rule, pair.key)
        else:
            group = _pseudonym(pair.image.patient) if pair.image.patient else None
        if group is None and (table is not None or rule is not None):
            what = (
                "the table of groups does not name it"
                if table is not None
                else "the rule for groups matches nothing"
            )
            left.append(
                Left(pair.image.name, "no-group", f"Its patient or movie is unknown: {what} of {pair.key!r}.")
            )
        else:
            kept.append(Pair(pair.key, pair.image, pair.mask, group))
    return kept, left


def _pseudonym(patient: str) -> str:
    """Another name for a patient, always the same. Who knows an identifier can still find it again."""
    return f"patient-{hashlib.sha256(patient.encode()).hexdigest()[:16]}"


def _by_rule(rule: re.Pattern[str], key: str) -> str | None:
    found = rule.search(key)
    if found is None:
        return None
    groups = [part for part in found.groups() if part is not None]
    return "/".join(groups) if groups else found.group(0)


Entry = tuple[str, Source]


def _named(entries: Iterable[Entry], name: Callable[[str], str | None]) -> dict[str | None, list[Entry]]:
    found: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        found[name(entry[0])].append(entry)
    return found


def _ambiguous(images: list[Entry], masks: list[Entry]) -> Iterable[Left]:
    what = f"{len(images)} images and {len(masks)} masks have this name; keep one of each, or give a rule (--pair)."
    yield from (Left(source.name, "ambiguous", what) for _, source in images)
    yield from (Left(source.name, "ambiguous", what, "masks") for _, source in masks)
