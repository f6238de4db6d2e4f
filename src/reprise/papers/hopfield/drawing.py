"""The figure: an energy with patterns in its valleys, pictures retrieved from halves, and capacities by dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprise.data import images
from reprise.nn.hopfield import Retrieval, energy, retrieve

COLOURS = ("#d95f02", "#1f77b4", "#b2df8a", "#33a02c", "#7f7f7f")  # by arm
ANGLES = torch.tensor([10.0, 45.0, 110.0, 200.0, 285.0, 320.0]).deg2rad()  # of the patterns, two pairs of them near
PATTERNS = 0.9 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
BETAS = {1.0: "one valley: all patterns averaged", 8.0: "near patterns share one", 60.0: "each pattern has its own"}


def draw(results: Any) -> Figure:
    """Two rows: landscapes at three inverse temperatures, then pictures beside the measured capacities."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False)[:, 0]
    top.suptitle("The energy of six stored patterns (crosses); updates (lines) lead every state down into a valley")
    for axes, (beta, what) in zip(top.subplots(1, len(BETAS), sharey=True), BETAS.items(), strict=True):
        _landscape(axes, beta)
        axes.set(title=f"β = {beta:g}: {what}", xlabel="first coordinate of the state")
        axes.title.set_fontsize("medium")
    top.axes[0].set_ylabel("second coordinate of the state")
    left, right = bottom.subfigures(1, 2, width_ratios=(3, 5), squeeze=False)[0]
    _halves(left)
    _capacities(right.subplots(), results)
    return figure


def _landscape(axes: Axes, beta: float) -> None:
    line = torch.linspace(-1.2, 1.2, 121)
    grid = torch.cartesian_prod(line, line)
    height = energy(grid, PATTERNS, beta).view(121, 121).T
    axes.contourf(line.numpy(), line.numpy(), height.numpy(), levels=30, cmap="viridis")
    angles = torch.arange(12) * (2 * np.pi / 12) + 0.1
    state = 1.1 * torch.stack([angles.cos(), angles.sin()], 1)
    path = [state]
    for _ in range(20):
        found = retrieve(path[-1], PATTERNS, beta)
        assert isinstance(found, torch.Tensor)
        path.append(found)
    for x, y in torch.stack(path).permute(1, 2, 0).numpy():
        axes.plot(x, y, "-", color="white", linewidth=1, marker=".", markersize=3)
        axes.plot(x[-1], y[-1], "o", color="white", markersize=6, markerfacecolor="none")
    axes.plot(*PATTERNS.T.numpy(), "x", color="#ff5533", markersize=8, markeredgewidth=2)
    axes.set_aspect("equal")


def _halves(panel: Any) -> None:
    """Digits that come with scikit-learn, whatever the data of the run."""
    pixels = images.load("digits").train.pixels.flatten(1).float()
    pixels = (pixels - pixels.mean(1, keepdim=True)) / pixels.std(1, keepdim=True)
    half = pixels[:4].clone()
    half[:, 32:] = 0
    found = retrieve(half, pixels[:1000], 1.0, return_trace=True)
    assert isinstance(found, Retrieval)
    panel.suptitle("Four of 1,000 stored digits, one update", fontsize="medium")
    grid = panel.subplots(3, 4, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    rows = {"shown": half, "retrieved": found.state, "stored": pixels[:4]}
    for axes, (name, pictures) in zip(grid, rows.items(), strict=True):
        for ax, picture in zip(axes, pictures, strict=True):
            ax.imshow(picture.view(8, 8).numpy(), cmap="gray", vmin=-1.5, vmax=2)
            ax.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name)


def _capacities(axes: Axes, results: Any) -> None:
    cells = sorted(results.cells("capacity"), key=int)
    for i, (name, arm) in enumerate(results.arms.items()):
        values = np.array([list(results.values(name, "capacity", cell).values()) for cell in cells])
        x = np.array([int(cell) for cell in cells])
        shift = 0.35 * (i - (len(results.arms) - 1) / 2)
        axes.plot(
            x + shift, np.exp(np.log(values).mean(1)), "-", color=COLOURS[i % len(COLOURS)], linewidth=1, label=arm.what
        )
        axes.plot(np.repeat(x[:, None] + shift, values.shape[1], 1), values, ".", color=COLOURS[i % len(COLOURS)])
    axes.set(yscale="log", xlabel="dimension d (bits)", ylabel="patterns held", xticks=[int(cell) for cell in cells])
    axes.set_title("Capacity: a dot per seed, lines through geometric means", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
