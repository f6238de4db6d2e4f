"""The figure: accuracy against parameters, and what each part of SpaRTAN contributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprise.papers.figures import dots

COLOURS = {"spartan": "#d95f02", "convnext": "#1f77b4", "mlp": "#4d4d4d", "plain_space": "#7570b3"}
PARTS = {
    "plain_space": "spatial mixer\nagainst plain 3x3",
    "mlp": "channel mixer\nagainst MLP",
    "convnext": "both\nagainst ConvNeXt",
}


def draw(results: Any) -> Figure:
    """Two panels; arms that were not run are left out."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _accuracy_against_parameters(left, results)
    _contributions(right, results)
    figure.suptitle("One dot per seed, a bar at the mean", fontsize="medium")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _accuracy_against_parameters(axes: Axes, results: Any) -> None:
    for name, colour in COLOURS.items():
        sizes = [arm for arm in (name, f"{name}_small") if arm in results.arms]
        points = []
        for arm in sizes:
            accuracy = list(results.values(arm, "accuracy").values())
            thousands = np.mean(list(results.values(arm, "parameters").values())) / 1000
            label = results.arms[arm].what if arm == name else None
            spread = np.linspace(-0.02, 0.02, len(accuracy)) if len(accuracy) > 1 else np.zeros(1)
            axes.plot(thousands * (1 + spread), accuracy, "o", color=colour, markersize=5, alpha=0.7, label=label)
            points.append((thousands, np.mean(accuracy)))
        if points:
            axes.plot(*np.transpose(points), color=colour, linewidth=1.5, marker="_", markersize=16)
    axes.set(title="Accuracy against parameters", xscale="log", xlim=(70, 400))
    axes.set(xlabel="parameters (thousands, logarithmic)", ylabel="test accuracy (%)")
    ticks = (70, 100, 150, 200, 300, 400)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _contributions(axes: Axes, results: Any) -> None:
    """Accuracy of SpaRTAN minus that of the arm with something plainer in its place, seed by seed."""
    others = [arm for arm in PARTS if arm in results.arms and "spartan" in results.arms]
    for row, arm in enumerate(others):
        with_part, without = results.values("spartan", "accuracy"), results.values(arm, "accuracy")
        gains = [with_part[seed] - without[seed] for seed in with_part if seed in without]
        dots(axes, row, gains, COLOURS[arm], width=0.2, flat=True)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(others)), [PARTS[arm] for arm in others])
    axes.set(ylim=(len(others) - 0.5, -0.5), xlabel="accuracy gained (points)")
    axes.set_title("What each part contributes")
