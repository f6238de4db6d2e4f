"""The figure: ways from one start to one goal, what each method reaches, and what steps and guidance change."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from reprise.papers.figures import dots

COLOURS = {"c_beso": "#d95f02", "cfg_beso": "#e6a100", "gcbc": "#1f77b4", "cbet": "#7570b3"}
BLOCKS = ("#444444", "#2ca02c")
TARGET = 0.05


def draw(results: Any) -> Figure:
    """Two rows; the ways are left out where the run's files are gone."""
    arms = list(results.arms)
    files = [results.file(arm, min(results.seeds), "ways.npz") for arm in arms]
    shown = all(files)
    figure = Figure(figsize=(11, 7.2 if shown else 3.8), layout="constrained")
    count = 2 if shown else 1
    grid = figure.add_gridspec(count, 1)
    rows = [figure.add_subfigure(grid[i, 0]) for i in range(count)]
    if shown:
        for axes, arm, file in zip(rows[0].subplots(1, len(arms)), arms, files, strict=True):
            _ways(axes, np.load(file), COLOURS[arm], results.arms[arm].what)
        rows[0].suptitle(
            "24 rollouts from one start (triangle) with one goal (crosses): the effector's ways; dots where they end"
        )
    bars, steps, scales = rows[-1].subplots(1, 3, gridspec_kw={"width_ratios": (1.3, 1, 1)})
    _reached(bars, results)
    _line(steps, results, "c_beso", "by_steps", COLOURS["c_beso"], "goal met (result)")
    steps.set(title="C-BESO, goal met", xlabel="denoising steps", xscale="log", ylim=(0, 1.02))
    steps.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    steps.minorticks_off()
    _line(scales, results, "cfg_beso", "reward_by_scale", "0.6", "in any target (reward)")
    _line(scales, results, "cfg_beso", "by_scale", COLOURS["cfg_beso"], "goal met (result)")
    scales.set(title="CFG-BESO", xlabel="guidance (lambda)", ylim=(0, 1.02))
    scales.legend(frameon=False, loc="lower right")
    for axes in (bars, steps, scales):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ways(axes: Axes, kept: Any, colour: str, title: str) -> None:
    start, goal = kept["start"], kept["goal"]
    for k in (0, 1):
        block, target, wanted = (part[2 * k :][:2] for part in (start[2:6], start[6:], goal[2:6]))
        axes.add_patch(Circle(target, TARGET, fill=False, color="0.6"))
        axes.plot(*block, "s", color=BLOCKS[k], markersize=9)
        axes.plot(*wanted, "x", color=BLOCKS[k], markersize=9, markeredgewidth=2.5)
    for way in kept["way"].transpose(1, 0, 2):
        known = way[np.isfinite(way).all(1)]
        axes.plot(*known.T, color=colour, linewidth=0.9, alpha=0.5)
        axes.plot(*known[-1], ".", color=colour)
    axes.plot(*start[:2], "^", color="black")
    axes.set(title=title, xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[])


def _reached(axes: Axes, results: Any) -> None:
    for i, arm in enumerate(results.arms):
        for metric, shift, colour in (("result", -0.14, COLOURS[arm]), ("reward", 0.14, "0.6")):
            dots(axes, i + shift, results.values(arm, metric).values(), colour, width=0.1)
    axes.set_xticks(range(len(results.arms)), [arm.what for arm in results.arms.values()])
    axes.set(title="Goal met (colour), any target (grey)", ylabel="share of blocks", ylim=(0, 1.02))


def _line(axes: Axes, results: Any, arm: str, metric: str, colour: str, label: str) -> None:
    cells = [cell for cell in results.cells(metric) if results.values(arm, metric, cell)] if arm in results.arms else []
    if not cells:
        return
    x = [float(cell) for cell in cells]
    values = np.array([list(results.values(arm, metric, cell).values()) for cell in cells])  # (cells, seeds)
    axes.plot(np.repeat(x, values.shape[1]), values.ravel(), "o", color=colour, markersize=4, alpha=0.6)
    axes.plot(x, values.mean(1), "-", color=colour, label=label)
