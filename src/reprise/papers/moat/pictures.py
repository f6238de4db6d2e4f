"""The figure: accuracy against size, and the reach of one pixel across the borders of attention windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

COLOURS = ("#d95f02", "#1f77b4", "#1b9e77", "#7570b3")  # by arrangement; arms with windows are hollow


def draw(results: Any, reach: Sequence[str], window: int) -> Figure:
    """Two rows; the reach is left out where the run's files are gone.

    Args:
        results: the finished trials.
        reach: arms with windows whose reach is shown.
        window: side of their windows.
    """
    files = [results.file(arm, min(results.seeds), "reach.npy") for arm in reach]
    shown = [(arm, np.load(file)) for arm, file in zip(reach, files, strict=True) if file]
    figure = Figure(figsize=(9, 8.6 if shown else 5), layout="constrained")
    rows = figure.subfigures(2 if shown else 1, 1, height_ratios=(4.6, 4) if shown else None, squeeze=False)[:, 0]
    _accuracy(rows[0].subplots(), results)
    if shown:
        rows[1].suptitle("What moves the output at the red cross; white lines are the borders of the attention windows")
        grid = rows[1].subplots(1, len(shown), squeeze=False)[0]
        for axes, (arm, strength) in zip(grid, shown, strict=True):
            picture = _reach(axes, results.arms[arm].what, strength, window)
        rows[1].colorbar(picture, ax=grid, label="mean gradient, largest = 1", extend="min")
    return figure


def _accuracy(axes: Axes, results: Any) -> None:
    names = [name for name in results.arms if not name.endswith("_windows")]
    for name, arm in results.arms.items():
        windows = name not in names
        colour = COLOURS[names.index(name.removesuffix("_windows")) % len(COLOURS)]
        values = list(results.values(name, "accuracy").values())
        size = float(np.mean(list(results.values(name, "parameters").values()))) / 1e3
        x = np.full(len(values), size + (0.5 if windows else -0.5))  # arms with and without windows are of one size
        axes.plot(x, values, "o", color=colour, fillstyle="none" if windows else "full", markersize=5, label=arm.what)
        axes.hlines(np.mean(values), x[0] - 0.35, x[0] + 0.35, color=colour, linewidth=2)
    axes.set(xlabel="parameters (thousands)", ylabel="accuracy on test pictures (share)")
    axes.set_title("Accuracy against size: one dot per seed, a bar at the mean (hollow: windows, set beside)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2, frameon=False, fontsize="small")


def _reach(axes: Axes, title: str, strength: np.ndarray, window: int) -> Any:
    side = len(strength)
    picture = axes.imshow(np.maximum(strength, 1e-6), norm=LogNorm(1e-3, 1), cmap="viridis")
    for border in range(window, side, window):
        axes.axhline(border - 0.5, color="white", linewidth=1.5)
        axes.axvline(border - 0.5, color="white", linewidth=1.5)
    axes.plot(3, 3, "x", color="red", markersize=9, markeredgewidth=2)
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="column of the map", ylabel="row of the map")
    return picture
