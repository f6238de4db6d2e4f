"""The figure: what the policy does, success by task, the denoiser's error by noise level, and the router's choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reprise.papers.figures import dots

__all__ = ["draw", "strip"]

COLOURS = ("#1f77b4", "#d95f02", "#2ca02c", "#9467bd")  # by arm
EXPERTS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52")  # by expert
FRAMES = 3  # of a film


def strip(frames: np.ndarray) -> np.ndarray:
    """FRAMES pictures of a film (T, H, W, 3), from its beginning to its end."""
    return frames[np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)]


def draw(results: Any) -> Figure:
    """Numbers; above them some episodes and below the router, where the files of the run are there."""
    first, seed = next(iter(results.arms)), min(results.seeds)
    frames, router = (results.file(first, seed, name) for name in ("film.npz", "router.npz"))
    heights = {"film": 5.2 * bool(frames), "numbers": 3.8, "router": 2.6 * bool(router)}
    heights = {name: height for name, height in heights.items() if height}
    figure = Figure(figsize=(11, sum(heights.values())), layout="constrained")
    panels = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
    rows = dict(zip(heights, panels, strict=True))
    if frames:
        _show_film(rows["film"], frames)
    tasks, levels = results.cells("success"), results.cells("score_loss")
    success, loss = rows["numbers"].subplots(1, 2, width_ratios=(1.6, 1))
    _dots(success, results, "success", tasks)
    slanted = {"rotation": 35, "ha": "right", "fontsize": "small"} if len(tasks) > 5 else {}
    success.set_xticks(range(len(tasks)), tasks, **slanted)
    success.set(
        ylim=(-0.02, 1.02), ylabel="success (share)", title="Success by task: one dot per seed, a bar at the mean"
    )
    _lines(loss, results, levels)
    handles, labels = success.get_legend_handles_labels()
    rows["numbers"].legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    if router:
        _show_router(rows["router"], router)
    return figure


def _show_film(panel: SubFigure, file: Path) -> None:
    with np.load(file) as content:
        frames, tasks = content["frames"], content["tasks"]
    panel.suptitle("MoDE at work on new tables, from the beginning to the end; what is done stands still", fontsize=11)
    for i, (axes, frame) in enumerate(zip(panel.subplots(len(frames), 1), frames, strict=True)):
        axes.imshow(frame)
        axes.set(yticks=[], ylabel="start" if i == 0 else "end" if i == len(frames) - 1 else "")
        places = (np.arange(len(tasks)) + 0.5) * frame.shape[1] / len(tasks)
        axes.set_xticks(places if i == 0 else [], tasks if i == 0 else [])
        axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
        axes.spines[:].set_visible(False)


def _dots(axes: Axes, results: Any, metric: str, cells: Sequence[str]) -> None:
    for i, (name, arm) in enumerate(results.arms.items()):
        shift = 0.36 * (i - (len(results.arms) - 1) / 2)
        colour = COLOURS[i % len(COLOURS)]
        for x, cell in enumerate(cells):
            values = results.values(name, metric, cell).values()
            dots(axes, x + shift, values, colour, width=0.16, label=arm.what if x == 0 else None)
    axes.set_xlim(-0.6, len(cells) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, results: Any, levels: Sequence[str]) -> None:
    x = [float(level) for level in levels]
    for i, name in enumerate(results.arms):
        curves = np.array([list(results.values(name, "score_loss", level).values()) for level in levels])
        axes.plot(x, curves, "o", color=COLOURS[i % len(COLOURS)], markersize=3, alpha=0.6)
        axes.plot(x, curves.mean(1), color=COLOURS[i % len(COLOURS)], linewidth=1.5)
    axes.set(
        xscale="log",
        xlabel="noise level σ",
        ylabel="weighted squared error",
        title="Error on demonstrations never seen",
    )
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)


def _show_router(panel: SubFigure, file: Path) -> None:
    with np.load(file) as content:
        levels, probabilities, sampler = content["levels"], content["probabilities"], content["sampler"]
    panel.suptitle(
        "Probability of each expert by noise level, one seed; ticks below: the sampler's ten levels", fontsize=11
    )
    for layer, (axes, values) in enumerate(
        zip(panel.subplots(1, len(probabilities), sharey=True, squeeze=False)[0], probabilities, strict=True)
    ):
        axes.stackplot(levels, values.T, colors=EXPERTS, labels=[f"expert {n + 1}" for n in range(values.shape[1])])
        axes.plot(sampler[:-1], np.full(len(sampler) - 1, 0.015), "|", color="black", markersize=9)
        axes.set(
            xscale="log", xlim=(levels[0], levels[-1]), ylim=(0, 1), xlabel="noise level σ", title=f"layer {layer + 1}"
        )
        if layer == 0:
            axes.set_ylabel("probability")
    handles, labels = axes.get_legend_handles_labels()
    panel.legend(handles, labels, loc="outside right center", frameon=False)
