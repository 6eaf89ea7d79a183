"""The package's templates of pages, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2


def rendered(template: str, filters: Mapping[str, Callable[..., object]], **values: Any) -> str:
    """A template of the package, filled in. HTML is escaped, where it is not a filter's `Markup`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        autoescape=template.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)
