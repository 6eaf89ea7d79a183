"""Figures of the benchmarks: how a benchmark records them, and how BENCHMARKS.md is made of them.

A benchmark script builds `Figure`s and calls `publish`, which prints them and writes out/benchmarks/NAME.json.
`python benchmarks/report.py` then writes BENCHMARKS.md from all those files; a bar that is not met fails it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "out" / "benchmarks"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    what: what was measured, in words. value: the number. unit: "s", "ms", "DSC", ... bar: what it has to
    reach, with at_least saying in which direction; None for a number that is only reported.
    """

    what: str
    value: float
    unit: str = ""
    bar: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the bar is reached; True without one."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def row(self) -> str:
        """One row of a Markdown table."""
        bar = (
            "" if self.bar is None else f"{'>=' if self.at_least else '<='} {self.bar:g} {self.unit}".rstrip()
        )
        verdict = "" if self.bar is None else ("yes" if self.met else "**no**")
        return f"| {self.what} | {self.value:.4g} {self.unit}".rstrip() + f" | {bar} | {verdict} |"


def publish(name: str, title: str, figures: Sequence[Figure], note: str = "") -> int:
    """Print a benchmark's figures and keep them for the report. Returns 0, or 1 when a bar is not met."""
    record = {
        "title": title,
        "note": note,
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip(),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "figures": [asdict(figure) for figure in figures],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print("\n".join(_section(record)))
    return 0 if all(figure.met for figure in figures) else 1


def machine() -> str:
    """The machine in a few words: cores, processor architecture, system, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def _section(record: dict) -> list[str]:
    rows = [Figure(**figure).row() for figure in record["figures"]]
    about = [f"`{record['command']}` on {record['machine']}, {record['date']}."]
    if record["note"]:
        about.append(record["note"])
    table = ["| what | measured | bar | met |", "|---|---|---|---|", *rows]
    return [f"## {record['title']}", "", *about, "", *table, ""]


def main() -> int:
    """Write BENCHMARKS.md from the figures at hand."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "BENCHMARKS.md")
    arguments = parser.parse_args()
    records = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    if not records:
        print(f"No figures in {RESULTS}: run a benchmark first.", file=sys.stderr)
        return 2
    lines = [
        "# Benchmarks",
        "",
        "Each table is what its command printed; `python benchmarks/report.py` puts them together. Times depend on",
        "the machine and on what else it does; compare figures of one run only.",
        "",
    ]
    for record in records:
        lines += _section(record)
    arguments.output.write_text("\n".join(lines), encoding="utf-8")
    missed = [f["what"] for r in records for f in r["figures"] if not Figure(**f).met]
    print(f"{arguments.output}: {len(records)} benchmarks" + (f"; bars not met: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
