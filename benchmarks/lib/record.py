"""Figures of the benchmarks, and how a benchmark takes its options and records what it measured.

A benchmark script builds `Figure`s and calls `publish`, which prints them and writes out/benchmarks/NAME.json.
`python benchmarks/record.py` then writes BENCHMARKS.md from all those files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "out" / "benchmarks"
PLACES = ("--json", "--data")  # options that name places on one machine


def load_average() -> float | None:
    """Programs running or waiting, averaged over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy_seconds() -> tuple[float, float] | None:
    """Seconds of processor time spent by all programs since the machine started, and now's clock; Linux only."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK"), time.monotonic()


LOAD_BEFORE, BUSY_BEFORE = load_average(), busy_seconds()  # before the benchmark itself adds to them


def others_cores() -> float | None:
    """Cores that other programs kept busy during this run (the X server counts as one); None if unknown."""
    now = busy_seconds()
    if now is None or BUSY_BEFORE is None:
        return None
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    return round(max(0.0, now[0] - BUSY_BEFORE[0] - ours) / (now[1] - BUSY_BEFORE[1]), 2)


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


def options_of(doc: str | None, *, data: bool = False) -> argparse.ArgumentParser:
    """The options of a benchmark, described by its docstring: `--json`, and `--data` where it reads the image sets."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    if data:
        parser.add_argument("--data", help="folder with the image sets")
    return parser


def publish(
    name: str, title: str, figures: Sequence[Figure], note: str = "", copy: Path | None = None
) -> int:
    """Print a benchmark's figures, keep them for the report and in the file `copy`. Returns 1 when a bar is not met."""
    record = {
        "title": title,
        "note": note,
        "command": command(sys.argv),
        "machine": machine(),
        "load": LOAD_BEFORE,
        "others": others_cores(),
        "date": datetime.now(UTC).date().isoformat(),
        "figures": [asdict(figure) for figure in figures],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (RESULTS / f"{name}.json", copy)):
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print("\n".join(section(record)))
    return 0 if all(figure.met for figure in figures) else 1


def command(argv: Sequence[str]) -> str:
    """The command line as anybody can repeat it: without the places of this machine."""
    words = [f"python benchmarks/{Path(argv[0]).name}"]
    rest = iter(argv[1:])
    for word in rest:
        if word in PLACES:
            next(rest, None)
        elif not word.startswith(tuple(f"{place}=" for place in PLACES)):
            place = "PYTHON" if Path(word).name.startswith("python") else "FOLDER"
            words.append(place if os.sep in word else word)
    return " ".join(words)


def machine() -> str:
    """The machine in a few words: cores, processor architecture, system, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def section(record: dict) -> list[str]:
    rows = [Figure(**figure).row() for figure in record["figures"]]
    load = record.get("load")
    before = "" if load is None else f", load average before the run {load:g}"
    others = record.get("others")
    during = "" if others is None else f"; other programs kept {others:g} cores busy meanwhile"
    about = [f"`{record['command']}` on {record['machine']}, {record['date']}{before}{during}."]
    if record["note"]:
        about += ["", record["note"]]
    table = ["| what | measured | bar | met |", "|---|---|---|---|", *rows]
    return [f"## {record['title']}", "", *about, "", *table, ""]
