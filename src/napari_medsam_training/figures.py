"""The report's figures as SVG text: box plots, learning curves, agreement of sizes. No screen is needed.

The same numbers give the same text, byte for byte.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from napari_medsam.model.decoder_file import CurvePoint
from napari_medsam_training.scoring import COLOURS

Curve = Sequence[CurvePoint]
STYLE = {"svg.hashsalt": "napari-medsam", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False}  # fmt: skip


def colour_of(place: int) -> tuple[float, ...]:
    """The colour of a model by its place, 0 to 1 each, as in the pictures."""
    return tuple(value / 255 for value in COLOURS[place % len(COLOURS)])


def box_plots(cases: pandas.DataFrame, metric: str, titles: Sequence[str]) -> str:
    """A box for each task and model over its cases, each case a dot."""
    tasks = list(dict.fromkeys(cases["task"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.9 + len(tasks) * (0.22 * len(titles) + 0.25)), layout="constrained")
        axes = figure.subplots()
        step = 0.8 / len(titles)
        for place, title in enumerate(titles):
            for row, task in enumerate(tasks):
                values = cases[(cases["task"] == task) & (cases["model"] == title)][metric].to_numpy()
                if len(values) == 0:
                    continue
                height = row + (place - (len(titles) - 1) / 2) * step
                axes.boxplot(
                    values,
                    positions=[height],
                    widths=step * 0.8,
                    orientation="horizontal",
                    patch_artist=True,
                    showfliers=False,
                    manage_ticks=False,
                    boxprops={"facecolor": (*colour_of(place), 0.45), "linewidth": 0.6},
                    medianprops={"color": "black"},
                    whiskerprops={"linewidth": 0.6},
                    capprops={"linewidth": 0.6},
                )
                axes.plot(values, np.full(len(values), height), ".", color="black", markersize=2.5, alpha=0.5)
            axes.plot([], [], "s", color=colour_of(place), label=title)
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(metric.upper())
        axes.grid(axis="x", linewidth=0.3)
        figure.legend(loc="outside upper left", ncols=min(len(titles), 6), frameon=False)
        return _svg(figure)


def learning_curves(curves: Mapping[str, Curve]) -> str:
    """Training loss and validation DSC by epoch, a line for each run; runs without epochs are left out."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, name, label in zip(
            figure.subplots(1, 2), ("loss", "validation"), ("training loss", "validation DSC"), strict=True
        ):
            for place, (title, curve) in enumerate(curves.items()):
                points = [
                    (point.epoch, getattr(point, name)) for point in curve if getattr(point, name) is not None
                ]
                if points:
                    style = ("-", "--", ":", "-.")[place // len(COLOURS) % 4]
                    axes.plot(
                        *zip(*points, strict=True), style, marker=".", color=colour_of(place), label=title
                    )
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(
                0.5, max((point.epoch for curve in curves.values() for point in curve), default=1) + 0.5
            )
            axes.set_ylabel(label)
            axes.grid(linewidth=0.3)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
        return _svg(figure)


def agreement_plots(rows: pandas.DataFrame, what: str, unit: str, titles: Sequence[str]) -> str:
    """Measured against reference, and Bland and Altman's plot: difference over mean, bias and limits as lines."""
    from napari_medsam.evaluate.agreement import agreement

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, title in enumerate(titles):
            part = rows[rows["model"] == title]
            if len(part) == 0:
                continue
            found, true = part[what].to_numpy(float), part[f"reference_{what}"].to_numpy(float)
            left.plot(true, found, "o", color=colour_of(place), markersize=3, alpha=0.7, label=title)
            right.plot((found + true) / 2, found - true, "o", color=colour_of(place), markersize=3, alpha=0.7)
            limits = agreement(found, true)
            right.axhline(limits.bias, color=colour_of(place), linewidth=1)
            for edge in (limits.low, limits.high):
                if np.isfinite(edge):
                    right.axhline(edge, color=colour_of(place), linewidth=0.7, linestyle="--")
        top = float(rows[[what, f"reference_{what}"]].to_numpy(float).max(initial=0))
        left.plot([0, top], [0, top], color="grey", linewidth=0.6)
        left.set_xlabel(f"reference, {unit}")
        left.set_ylabel(f"measured, {unit}")
        right.set_xlabel(f"mean of both, {unit}")
        right.set_ylabel(f"measured - reference, {unit}")
        for axes in (left, right):
            axes.locator_params(axis="x", nbins=6)
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
