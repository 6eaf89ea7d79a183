"""Which mask belongs to which image: by name, by a rule for names, or by what a DICOM segmentation refers to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import itemgetter

from napari_medsam_training.corpus.left_out import Left
from napari_medsam_training.corpus.sources import Source

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
    names: list[Name] = (
        [lambda key: _by_rule(rule, key)] if rule else [lambda key: key, lambda key: _ENDING.sub("", key)]
    )
    pairs: list[Pair] = []
    left: list[Left] = []
    for name in names:
        rest: tuple[list[Source], list[Source]] = ([], [])
        for candidates, partners in _by_name(images, masks, name, by_uid):
            if len(candidates) == len(partners) == 1:
                pairs.append(Pair(candidates[0].key, candidates[0], partners[0]))
            elif candidates and partners:
                left += _ambiguous(candidates, partners)
            else:
                rest[0].extend(candidates)
                rest[1].extend(partners)
        images, masks = rest
    left += [Left(image.name, "no-mask", "No mask has this image's name.") for image in images]
    left += [Left(mask.name, "no-image", "No image has this mask's name.", "masks") for mask in masks]
    return sorted(pairs, key=lambda pair: pair.key), left


def apart(sources: Iterable[Source]) -> tuple[list[Source], list[Source]]:
    """(images, masks) of one folder that holds both: masks are DICOM segmentations and names that end like masks."""
    images: list[Source] = []
    masks: list[Source] = []
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


Name = Callable[[str], str | None]


def _by_name(
    images: Iterable[Source], masks: Iterable[Source], name: Name, by_uid: Mapping[str, str]
) -> Iterator[tuple[list[Source], list[Source]]]:
    """The images and the masks of each name, by merging two sorted lists; those without a name one by one."""

    def named(source: Source) -> str:
        key = by_uid.get(source.uid, source.key) if source.kind == "seg" else source.key
        found = name(key)
        return f"\0{source.key}\0{source.kind}{id(source)}" if found is None else found

    first = ((named(source), 0, source) for source in sorted(images, key=named))
    second = ((named(source), 1, source) for source in sorted(masks, key=named))
    for _, entries in groupby(merge(first, second, key=itemgetter(0, 1)), itemgetter(0)):
        both: tuple[list[Source], list[Source]] = ([], [])
        for _, which, source in entries:
            both[which].append(source)
        yield both


def _ambiguous(images: list[Source], masks: list[Source]) -> Iterator[Left]:
    what = f"{len(images)} images and {len(masks)} masks have this name; keep one of each, or give a rule (--pair)."
    yield from (Left(source.name, "ambiguous", what) for source in images)
    yield from (Left(source.name, "ambiguous", what, "masks") for source in masks)
