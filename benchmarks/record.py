"""BENCHMARKS.md, made of what the benchmarks left in out/benchmarks; a bar that is not met fails it.

python benchmarks/record.py [-o OUTPUT]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lib.record import RESULTS, ROOT, section

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
    sections.update({record["title"]: section(record) for record in records})
    text = [line for title in sorted(sections) for line in sections[title]]
    lines = ["# Benchmarks", "", PREFACE, _summary(sections), "", *text]
    arguments.output.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")
    missed = _missed(sections)
    print(f"{arguments.output}: {len(records)} benchmarks" + (f"; bars not met: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
