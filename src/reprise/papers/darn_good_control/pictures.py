"""The figures: rewards and full episodes by rule, policies over the state space, and episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reprise.papers.figures import dots

ARMS = {  # name in the figure and colour
    "cmort": ("constant\nmortality", "#4d4d4d"),
    "cmort_95": ("0.95 of\nit", "#7f7f7f"),
    "cmort_90": ("0.9 of\nit", "#9f9f9f"),
    "cmort_80": ("0.8 of\nit", "#bfbfbf"),
    "cesc": ("constant\nescape-\nment", "#1f77b4"),
    "ppo": ("PPO", "#d95f02"),
    "ppo_sampled": ("PPO,\nsampled", "#e7a36f"),
    "ppo_gp": ("PPO\n+ GP", "#a6761d"),
    "best": ("dynamic\nprogram", "#2ca02c"),
}
MAPPED = ("cmort", "cesc", "ppo", "ppo_gp")
SPECIES = (("X", "#1f77b4"), ("Y", "#2ca02c"), ("Z, the predator", "#d95f02"))


def draw(results: Any) -> Figure:
    """Dots by rule; below, where the run's files are still there, maps of the escapement and episodes."""
    maps = _files(results, "map.npz", MAPPED)
    episodes = _files(results, "episodes.npz", ("cmort", "ppo"))
    rows = 1 + bool(maps) + bool(episodes)
    figure = Figure(figsize=(11, 1 + 3.3 * rows), layout="constrained")
    panels = list(figure.subfigures(rows, 1, squeeze=False)[:, 0])
    _draw_dots(panels.pop(0), results)
    if maps:
        _draw_maps(panels.pop(0), maps)
    if episodes:
        _draw_episodes(panels.pop(0), episodes)
    return figure


def _files(results: Any, name: str, arms: tuple[str, ...]) -> dict[str, Any]:
    """The arrays that arms of the first seed left behind."""
    paths = {arm: results.file(arm, min(results.seeds), name) for arm in arms if arm in results.arms}
    return {arm: np.load(path) for arm, path in paths.items() if path}


def _draw_dots(panel: SubFigure, results: Any) -> None:
    panel.suptitle("Reward and full episodes: a dot per seed, a bar at the mean")
    left, right = panel.subplots(1, 2)
    _dots(left, results, "reward")
    left.set_ylabel("total catch of an episode\n(carrying capacities)")
    _dots(right, results, "full")
    right.set_ylabel("episodes without near extinction\n(share)")


def _dots(axes: Axes, results: Any, metric: str) -> None:
    for x, arm in enumerate(results.arms):
        dots(axes, x, results.values(arm, metric).values(), ARMS[arm][1])
    axes.set_xticks(range(len(results.arms)), [ARMS[arm][0] for arm in results.arms], fontsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_maps(panel: SubFigure, maps: dict[str, Any]) -> None:
    if next(iter(maps.values()))["visited"].shape[1] == 1:
        _draw_lines(panel, maps)
        return
    panel.suptitle(
        "What is left of X after the harvest, by X and Z (Y at its median); points: where PPO's episodes lead"
    )
    row = panel.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axes, (arm, data) in zip(row, maps.items(), strict=True):
        side = round(len(data["escapement"]) ** 0.5)
        image = axes.imshow(
            data["escapement"][:, 0].reshape(side, side), origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1,
            cmap="viridis", aspect="auto",
        )  # fmt: skip
        axes.plot(data["visited"][:, 0], data["visited"][:, 2], ".", color="white", markersize=1.5, alpha=0.5)
        axes.set(title=ARMS[arm][0].replace("-\n", "").replace("\n", " "), xlabel="X before the harvest")
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))
    row[0].set_ylabel("Z, the predator")
    panel.colorbar(image, ax=list(row), label="X after the harvest")


def _draw_lines(panel: SubFigure, maps: dict[str, Any]) -> None:
    panel.suptitle("What is left after the harvest, by what was there")
    axes = panel.subplots()
    for arm, data in maps.items():
        x = np.linspace(0, 1, len(data["escapement"]) + 1)[1:]
        axes.plot(
            x, data["escapement"][:, 0], color=ARMS[arm][1], label=ARMS[arm][0].replace("-\n", "").replace("\n", " ")
        )
    axes.set(xlabel="population before the harvest", ylabel="after it", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_episodes(panel: SubFigure, episodes: dict[str, Any]) -> None:
    panel.suptitle("Twelve episodes, the same weather for both rules; a cross is a near extinction")
    row = panel.subplots(1, len(episodes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (arm, data) in zip(row, episodes.items(), strict=True):
        populations = data["populations"]
        for i in range(populations.shape[2]):
            label, colour = SPECIES[i]
            axes.plot(populations[:, :, i], color=colour, linewidth=0.5, alpha=0.6)
            axes.plot([], color=colour, label=label)
        for episode in range(populations.shape[1]):
            lived = int(np.isfinite(populations[:, episode, 0]).sum())
            if lived < len(populations):
                axes.plot(lived, 0.02, "x", color="black", markersize=5)
        axes.set(title=ARMS[arm][0].replace("\n", " "), xlabel="year", ylim=(0, 1.4))
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel("population (carrying capacities)")
    row[-1].legend(frameon=False, fontsize="small", loc="upper right")


def draw_stability(results: Any) -> Figure:
    """Reward by spread; the two arms of one seed are the same fishery."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    cells = results.cells("reward")
    for i, (name, arm) in enumerate(results.arms.items()):
        colour = ("#2ca02c", "#1f77b4")[i % 2]
        for x, cell in enumerate(cells):
            values = results.values(name, "reward", cell).values()
            dots(axes, x + 0.2 * (i - 0.5), values, colour, width=0.09, label=arm.what if x == 0 else None)
    axes.set_xticks(range(len(cells)), cells)
    axes.set(xlabel="relative deviation of the model's numbers", ylabel="total catch of an episode")
    axes.set_title("Each dot is a fishery of its own, on which the rule was tuned and PPO trained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
