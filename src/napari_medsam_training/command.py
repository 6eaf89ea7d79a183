"""What the commands share: how they are described, and how they fail."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable

from napari_medsam.errors import MedSAMError


def parser_of(doc: str | None) -> ArgumentParser:
    """A parser whose help begins with a module's docstring."""
    return ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)


def status_of(name: str, work: Callable[[], int | None], failed: int = 2) -> int:
    """A command's exit status: what its work gives, or `failed` after the message of an error that has a remedy."""
    try:
        return work() or 0
    except (MedSAMError, ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return failed
