"""Figures of the benchmarks: how a benchmark records them, and how BENCHMARKS.md is made of them.

A benchmark script builds `Figure`s and calls `publish`, which prints them and writes out/benchmarks/NAME.json.
`python benchmarks/record.py` then writes BENCHMARKS.md from all those files; a bar that is not met fails it.
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

ROOT = Path(__file__).resolve().parent.parent
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


def publish(name: str, title: str, figures: Sequence[Figure], note: str = "") -> int:
    """Print a benchmark's figures and keep them for the report. Returns 0, or 1 when a bar is not met."""
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
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print("\n".join(_section(record)))
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


def _section(record: dict) -> list[str]:
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


PREFACE = """\
Every figure the project quotes has a command here. Each table below is what its command printed;
`python benchmarks/record.py` puts them together from `out/benchmarks/*.json`, so nothing in this file is typed by
hand. A table stays until its command is run again. A bar that is not met says **no** until it is met.

- Run one benchmark at a time on a machine that does nothing else: `python benchmarks/NAME.py [--json OUT]`. Each
  takes a few minutes at most and ends with status 1 when it misses a bar.
- Each has its baseline in the same run, and rivals take turns. Compare figures of one table only: seconds depend
  on the machine and on what else it does (under each title: the load average before the run, and how many cores
  other programs kept busy during it), ratios much less.
- The tables of 2026-11-24 and 2026-11-26 come from machines with AVX-512, those of 2026-11-25 from one without: there
  the same decode takes about twice as long.
- `window`, `training_window`, `event_loop` and `region_edit` open a real napari window. Without a screen put
  `xvfb-run -a -s "-screen 0 1600x1000x24"` in front; the canvas is then drawn by the CPU, which a graphics card
  does in a fraction of the time.
- `accuracy`, `zero_shot`, `loop` and part of `cache` need the image sets: `--data DIR` or the variable
  NAPARI_MEDSAM_DATA. `upstream_reads` needs a checkout of the published code, `rival` micro-sam in an environment of
  its own (`--rival PYTHON`; the two commands that make it are in the script).
"""


def kept_sections(report: Path) -> dict[str, list[str]]:
    """The sections of an earlier report by title, as they stand: figures of benchmarks that were not run anew."""
    sections: dict[str, list[str]] = {}
    if report.exists():
        for line in report.read_text("utf-8").split("\n"):
            if line.startswith("## "):
                sections[line.removeprefix("## ")] = []
            if sections:
                sections[list(sections)[-1]].append(line)
    return sections


def _missed(sections: dict[str, list[str]]) -> list[str]:
    return [
        f"{title}: {line.split('|')[1].strip()}"
        for title, lines in sections.items()
        for line in lines
        if line.endswith("| **no** |")
    ]


def _summary(sections: dict[str, list[str]]) -> str:
    met = sum(line.endswith("| yes |") for lines in sections.values() for line in lines)
    missed = _missed(sections)
    listed = "".join(f"\n- {what}" for what in missed)
    return f"{met} of {met + len(missed)} bars are met." + (f" Not met:\n{listed}" if missed else "")


def main() -> int:
    """Write BENCHMARKS.md from the figures at hand; sections whose benchmark was not run anew stay as they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "BENCHMARKS.md")
    arguments = parser.parse_args()
    records = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    if not records:
        print(f"No figures in {RESULTS}: run a benchmark first.", file=sys.stderr)
        return 2
    sections = kept_sections(arguments.output)
    sections.update({record["title"]: _section(record) for record in records})
    text = [line for title in sorted(sections) for line in sections[title]]
    lines = ["# Benchmarks", "", PREFACE, _summary(sections), "", *text]
    arguments.output.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")
    missed = _missed(sections)
    print(f"{arguments.output}: {len(records)} benchmarks" + (f"; bars not met: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
