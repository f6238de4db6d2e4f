"""The figure: the overview that the page shows, for one picture, and the accuracy of the three nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import ConnectionPatch

from reprise.papers.figures import dots

COLOURS = {"tiny_vgg": "#d95f02", "one_conv": "#7570b3", "softmax": "#4d4d4d"}


def draw(results: Any) -> Figure:
    """Left the maps, left out where the run's files are gone; right the accuracy, a dot per seed."""
    file = results.file("tiny_vgg", min(results.seeds), "maps.npz") if "tiny_vgg" in results.arms else None
    figure = Figure(figsize=(13.5, 5.4) if file else (4.5, 4.2), layout="constrained")
    parts = figure.subfigures(1, 2 if file else 1, width_ratios=(3.4, 1) if file else None, squeeze=False)[0]
    if file:
        _show_maps(parts[0], file)
    _accuracy(parts[-1].subplots(), results)
    return figure


def _show_maps(part: SubFigure, file: Path) -> None:
    """Columns of maps in the page's colours: red below zero, white at zero, blue above, one range per convolution."""
    with np.load(file) as content:
        columns = {name: content[name] for name in content.files}
    probabilities, classes = columns.pop("probabilities"), [str(name) for name in columns.pop("classes")]
    columns = {name: values for name, values in columns.items() if values.ndim == 3}
    rows = max(len(values) for values in columns.values())
    grid = part.subplots(rows, len(columns) + 1, width_ratios=[1] * len(columns) + [2.6], squeeze=False)
    top = 1.0
    before: list[Axes] = []
    for place, (name, values) in enumerate(columns.items()):
        if name.startswith("conv"):
            top = 0.1 + float(np.abs(values).max())
        first = (rows - len(values)) // 2
        shown = []
        for row, axes in enumerate(grid[:, place]):
            axes.set_axis_off()
            if 0 <= row - first < len(values):
                low, high, colours = (0, 1, "gray") if place == 0 else (-top, top, "RdBu")
                axes.imshow(values[row - first], cmap=colours, vmin=low, vmax=high, interpolation="nearest")
                shown.append(axes)
        grid[0, place].set_title(name, fontsize=8)
        _connect(part, before, shown, every=name.startswith("conv"))
        before = shown
    for axes in grid[1:, -1]:
        axes.remove()
    axes = grid[0, -1]
    axes.set_subplotspec(axes.get_gridspec()[:, -1])
    axes.barh(range(len(classes)), probabilities, color=COLOURS["tiny_vgg"])
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set(ylim=(len(classes) - 0.5, -0.5), xlim=(0, 1), xlabel="probability")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("output", fontsize=8)
    part.suptitle("One picture in Tiny VGG: red below zero, white zero, blue above", fontsize="medium")


def _connect(part: SubFigure, before: list[Axes], here: list[Axes], every: bool) -> None:
    for to, target in enumerate(here):
        for source in before if every else before[to : to + 1]:
            edge = ConnectionPatch(
                (1, 0.5), (0, 0.5), source.transAxes, target.transAxes, color="0.85", linewidth=0.5, zorder=-1
            )
            part.add_artist(edge)


def _accuracy(axes: Axes, results: Any) -> None:
    arms = [arm for arm in COLOURS if arm in results.arms]
    for place, arm in enumerate(arms):
        dots(axes, place, results.values(arm, "accuracy").values(), COLOURS[arm])
    sizes = [np.mean(list(results.values(arm, "parameters").values())) for arm in arms]
    names = {"tiny_vgg": "Tiny VGG", "one_conv": "one\nconvolution", "softmax": "softmax\nregression"}
    labels = [f"{names[arm]}\n({size:,.0f})" for arm, size in zip(arms, sizes, strict=True)]
    axes.set_xticks(range(len(arms)), labels, fontsize=8)
    axes.set(xlim=(-0.6, len(arms) - 0.4), xlabel="net (parameters)", ylabel="test accuracy (%)")
    axes.set_title("A dot per seed, a bar at the mean", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
