"""The figures: votes of pixels beside what constants say, shares by network, and eigen-inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

COLOURS = ("#d95f02", "#1f77b4", "#33a02c", "#7f7f7f")  # by arm
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "digits": "digits"}


def draw(results: Any) -> Figure:
    """A row of votes per set of data where the run's files are there, then shares and accuracies."""
    arm, seed, cells = next(iter(results.arms)), min(results.seeds), results.cells("share")
    files = {cell: file for cell in cells if (file := results.file(arm, seed, f"votes {cell}.npz"))}
    figure = Figure(figsize=(11, 3.8 + 2.9 * len(files)), layout="constrained")
    rows = list(figure.subfigures(1 + len(files), 1, height_ratios=[2.9] * len(files) + [3.8], squeeze=False)[:, 0])
    for cell, file in files.items():
        _votes(rows.pop(0), file, NAMES.get(cell, cell))
    left, right = rows[0].subplots(1, 2)
    _dots(left, results, "share", cells)
    left.set(title="Share of constants: a dot per seed", ylabel="|r| / (|r| + |F x|)", ylim=(0, 1.02))
    left.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.1))
    _dots(right, results, "accuracy", cells)
    _dots(right, results, "accuracy_linear", cells, marker="x")
    right.set(title="Accuracy: whole network (dots), F x alone (crosses)", ylabel="accuracy (share)", ylim=(0, 1.02))
    return figure


def draw_basis(results: Any) -> Figure:
    """Per network a row of the kernel, of eigen-inputs and a column of numbers."""
    seed, cells = min(results.seeds), results.cells("spread")
    files = {name: file for name in results.arms if (file := results.file(name, seed, "basis.npz"))}
    figure = Figure(figsize=(10, 3.4 + 1.3 * len(files) * len(cells)), layout="constrained")
    heights = [1.3 * len(cells)] * len(files) + [3.4]
    rows = list(figure.subfigures(1 + len(files), 1, height_ratios=heights, squeeze=False)[:, 0])
    for name, file in files.items():
        _basis(rows.pop(0), file, cells, results.arms[name].what)
    titles = {"spread": "spread of eigen-inputs", "band_pass_output": "detail in eigen-outputs"}
    for axes, (metric, title) in zip(rows[0].subplots(1, 2), titles.items(), strict=True):
        _dots(axes, results, metric, cells)
        label = (
            "participation ratio (share of pixels)"
            if metric == "spread"
            else "energy above 1/8 cycle per pixel (share)"
        )
        axes.set(title=f"{title.capitalize()}: a dot per seed", ylabel=label, ylim=(0, None))
    handles, labels = rows[0].axes[0].get_legend_handles_labels()
    rows[0].legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _votes(panel: SubFigure, file: Path, name: str) -> None:
    """One picture: itself, votes for the winner and the runner-up, each pixel's own opinion, and the scores."""
    kept = np.load(file)
    pixels, votes, residual, classes = kept["pixels"][0], kept["votes"][0], kept["residuals"][0], kept["classes"]
    own = votes.sum((1, 2))
    order = np.argsort(-(own + residual))
    panel.suptitle(f"{name}: every pixel votes, and constants have their say (label: {classes[kept['labels'][0]]})")
    axes = panel.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.6))
    axes[0].imshow(pixels.transpose(1, 2, 0).squeeze(), cmap="gray")
    axes[0].set_title("picture", fontsize="medium")
    limit = np.quantile(np.abs(votes), 0.995)
    for ax, c, rank in zip(axes[1:3], order, ("winner", "runner-up"), strict=False):
        shown = ax.imshow(votes[c], cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(f"votes for {classes[c]}\n({rank})", fontsize="medium")
    panel.colorbar(shown, ax=axes[1:3], shrink=0.7, label="part of the logit", location="left")
    axes[3].imshow(votes.argmax(0), cmap="tab10", vmin=0, vmax=9)
    axes[3].set_title("each pixel's class\n(colours as at the right)", fontsize="medium")
    for ax in axes[:4]:
        ax.set(xticks=[], yticks=[])
    places = np.arange(len(classes))
    axes[4].bar(places - 0.2, own - own.mean(), 0.4, color="#1f77b4", label="F x")
    axes[4].bar(places + 0.2, residual - residual.mean(), 0.4, color="#d95f02", label="r")
    axes[4].axhline(0, color="0.3", linewidth=0.8)
    axes[4].set_xticks(places, [name[:6] for name in classes], rotation=0 if max(map(len, classes)) < 3 else 90)
    for label, colour in zip(axes[4].get_xticklabels(), _colours(len(classes)), strict=True):
        label.set_color(colour)
    axes[4].set_ylabel("logit")
    axes[4].set_title("scores, less their mean", fontsize="medium")
    axes[4].legend(frameon=False, fontsize="small", loc="best")


def _basis(panel: SubFigure, file: Path, cells: list[str], what: str) -> None:
    kept = np.load(file)
    panel.suptitle(f"{what.capitalize()}: picture, row of its middle pixel, leading eigen-inputs", fontsize="medium")
    grid = panel.subplots(len(cells), 10, squeeze=False)
    for axes, cell in zip(grid, cells, strict=True):
        pictures = (
            [kept[f"picture {cell}"], kept[f"row {cell}"], *kept[f"inputs {cell}"]] if f"row {cell}" in kept else []
        )
        for i, (ax, picture) in enumerate(zip(axes, pictures, strict=False)):
            limit = np.abs(picture).max()
            ax.imshow(picture, **({"cmap": "gray"} if i == 0 else {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}))
        for i, ax in enumerate(axes):
            ax.set(xticks=[], yticks=[])
            ax.set_frame_on(i < len(pictures))
        axes[0].set_ylabel(NAMES.get(cell, cell))


def _dots(axes: Axes, results: Any, metric: str, cells: list[str], marker: str = "o") -> None:
    for i, (name, arm) in enumerate(results.arms.items()):
        shift = 0.2 * (i - (len(results.arms) - 1) / 2)
        for x, cell in enumerate(cells):
            values = list(results.values(name, metric, cell).values())
            spread = np.linspace(-0.05, 0.05, len(values)) if len(values) > 1 else np.zeros(len(values))
            label = arm.what if x == 0 else None
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(x + shift + spread, values, marker, color=colour, markersize=5, alpha=0.75, label=label)
    axes.set_xticks(range(len(cells)), [NAMES.get(cell, cell) for cell in cells])
    axes.set_xlim(-0.5, len(cells) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10"](i % 10) for i in range(count)]
