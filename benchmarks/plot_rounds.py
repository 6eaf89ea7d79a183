"""The picture of the loop: what `loop.py --parts rounds` measured, as docs/loop.png.

    python benchmarks/plot_rounds.py [--rounds FILE] [--out FILE]

One column a set: above, the DSC of the next, untouched cases against the number of corrected ones, with and without
retraining; below, the pixels that a person would have to repaint in each of them. Dots are seeds, lines their medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from lib.record import ROOT

mpl.use("Agg")
import matplotlib.pyplot as plt

WAYS = (("released", "as released", "#8a8f98"), ("new", "retrained", "#2f6fde"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=Path, default=ROOT / "docs" / "loop_rounds.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "loop.png")
    options = parser.parse_args()
    rows = json.loads(options.rounds.read_text())
    draw(rows, options.out)
    print(options.out)
    return 0


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows of `loop.rounds` to a PNG."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = plt.subplots(2, len(names), figsize=(2.6 * len(names), 4.6), sharex=True, squeeze=False)
    for column, name in enumerate(names):
        own = [row for row in rows if row["set"] == name]
        for way, label, color in WAYS:
            _line(axes[0][column], own, way, label, color)
            _line(axes[1][column], own, f"repaint {way}", label, color)
        axes[0][column].set_title(name, fontsize=9)
        axes[1][column].set_ylim(bottom=0)
        axes[1][column].set_xlabel("cases corrected")
    axes[0][0].set_ylabel("DSC of the next cases")
    axes[1][0].set_ylabel("pixels to repaint a case")
    axes[0][0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _line(axis: Any, rows: list[dict[str, Any]], key: str, label: str, color: str) -> None:
    counts = sorted({row["corrected"] for row in rows})
    axis.scatter([row["corrected"] for row in rows], [row[key] for row in rows], s=8, color=color, alpha=0.4)
    middles = [median(row[key] for row in rows if row["corrected"] == count) for count in counts]
    axis.plot(counts, middles, color=color, label=label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)


if __name__ == "__main__":
    sys.exit(main())
