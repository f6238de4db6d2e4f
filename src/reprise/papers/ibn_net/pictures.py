"""The figure: pictures at home and shifted, accuracy on them, and how far their features are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reprise.papers.figures import dots

COLOURS = ("#7f7f7f", "#1f77b4", "#d95f02")  # by arm
NAMES = {
    "home": "unshifted",
    "rgb+50": "RGB + 50",
    "r+50": "red + 50",
    "std/1.5": "contrast / 1.5",
    "gamma2": "gamma 2",
}


def draw(results: Any, kinds: Sequence[str], claimed: Sequence[str], stages: Sequence[str]) -> Figure:
    """Three rows; the pictures are left out where the run's files are gone.

    Args:
        results: the finished trials.
        kinds: cells of the accuracy: home and the shifts.
        claimed: the shifts that the claims are about; they follow home.
        stages: cells of the divergence.
    """
    file = results.file(next(iter(results.arms)), min(results.seeds), "pictures.npy")
    figure = Figure(figsize=(10, 9.4 if file else 6.8), layout="constrained")
    heights = (2.8, 3.6, 3.0) if file else (3.6, 3.0)
    rows = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if file:
        _show_pictures(rows.pop(0), file, kinds)

    accuracy = rows[0].subplots()
    accuracy.axvspan(0.5, 0.5 + len(claimed), color="0.94", zorder=0)
    middle = (1 + len(claimed)) / 2
    axis = accuracy.get_xaxis_transform()
    accuracy.text(middle, 0.03, "the paper's shifts", transform=axis, ha="center", va="bottom", color="0.35")
    accuracy.axhline(0.1, color="0.6", linewidth=0.8, linestyle=":")
    accuracy.text(-0.45, 0.105, "chance", va="bottom", color="0.5", fontsize="small")
    _dots(accuracy, results, "accuracy", kinds)
    accuracy.set_ylim(bottom=0)
    accuracy.set(title="Accuracy by shift: one dot per seed, a bar at the mean", ylabel="accuracy (share)")

    divergence = rows[1].subplots()
    _dots(divergence, results, "divergence", stages)
    divergence.set(yscale="log", ylabel="divergence (nats)")
    divergence.set_title("How far the paper's shifts move the features of unshifted pictures")
    handles, labels = accuracy.get_legend_handles_labels()
    rows[1].legend(handles, labels, loc="outside lower center", frameon=False)
    return figure


def _show_pictures(panel: SubFigure, file: Path, kinds: Sequence[str]) -> None:
    """One column per kind, one row per picture."""
    pictures = np.load(file)  # (kinds, pictures, 3, H, W)
    panel.suptitle("The same test pictures, unshifted and under each shift; training saw only the first kind")
    grid = panel.subplots(pictures.shape[1], len(kinds), gridspec_kw={"wspace": 0.02, "hspace": 0.02}, squeeze=False)
    for column, kind in enumerate(kinds):
        for row, axes in enumerate(grid[:, column]):
            axes.imshow(pictures[column, row].transpose(1, 2, 0))
            axes.set_axis_off()
        grid[0, column].set_title(NAMES.get(kind, kind), fontsize="medium")


def _dots(axes: Axes, results: Any, metric: str, cells: Sequence[str]) -> None:
    for i, (name, arm) in enumerate(results.arms.items()):
        shift = 0.24 * (i - (len(results.arms) - 1) / 2)
        colour = COLOURS[i % len(COLOURS)]
        for x, cell in enumerate(cells):
            values = results.values(name, metric, cell).values()
            dots(axes, x + shift, values, colour, width=0.1, label=arm.what if x == 0 else None)
    axes.set_xticks(range(len(cells)), [NAMES.get(cell, cell) for cell in cells])
    axes.set_xlim(-0.5, len(cells) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
