"""The figure: how success grows with experience, where everybody ends, and where the peg goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reprise.envs import PegInsert
from reprise.papers.figures import dots

ARMS = {  # name in the figure and colour
    "base": ("frozen\npolicy", "#4d4d4d"),
    "dsrl_na": ("DSRL-NA", "#d95f02"),
    "dsrl_sac": ("DSRL-SAC", "#1f77b4"),
    "sac": ("SAC on\nactions", "#9f9f9f"),
    "best_of_n": ("best of\n16 plans", "#2ca02c"),
}
PATHS = ("base", "dsrl_na")  # whose pegs are shown
SLOTS = (-0.3, 0.3)  # of the world in which they are


def record_paths(act: Callable[[Any], np.ndarray], execute: int, count: int = 40) -> np.ndarray:
    """(count, steps + 1, 2) tips of pegs that all start in the middle between two slots; NaN after success.

    Args:
        act: observations to chunks.
        execute: actions of a chunk.
        count: pegs.
    """
    env = PegInsert(count, "two_slots")
    env.reset(seed=0)
    env.slot[:], env.tip[:] = SLOTS, (0.0, 0.35)
    observation = env.observe(np.arange(count))
    tips, over = [env.tip.copy()], np.zeros(count, bool)
    for _ in range(env.task.horizon // execute):
        chunks = np.clip(act(observation), -1, 1)
        for k in range(execute):
            before = env.tip.copy()
            observation, _, terminated, truncated, infos = env.step(chunks[:, k])
            last = np.array([infos["final_obs"][i][:2] if terminated[i] else tip for i, tip in enumerate(env.tip)])
            tips.append(np.where(over[:, None], np.nan, np.where(truncated[:, None], before, last)))
            over |= terminated
    return np.stack(tips, 1)


def draw(results: Any) -> Figure:
    """Curves and dots; below, where the run's files are still there, the pegs' paths."""
    files = {arm: results.file(arm, min(results.seeds), "paths.npy") for arm in PATHS if arm in results.arms}
    paths = {arm: np.load(file) for arm, file in files.items() if file}
    figure = Figure(figsize=(10, 3.6 + 3.2 * bool(paths)), layout="constrained")
    panels = list(figure.subfigures(1 + bool(paths), 1, squeeze=False)[:, 0])
    left, right = panels[0].subplots(1, 2, width_ratios=(1.3, 1))
    _draw_curves(left, results)
    _draw_dots(right, results)
    if paths:
        _draw_paths(panels[1], paths)
    return figure


def _draw_curves(axes: Axes, results: Any) -> None:
    for arm in results.arms:
        label, colour = ARMS[arm]
        curves = list(results.curve(arm, "success").values())
        if not curves:
            mean = np.mean(list(results.values(arm, "success").values()))
            axes.axhline(mean, color=colour, linestyle="--", label=label.replace("\n", " "))
            continue
        for curve in curves:
            axes.plot(*np.transpose(curve), color=colour, linewidth=0.6, alpha=0.4)
        shortest = min(len(curve) for curve in curves)
        mean = np.mean([curve[:shortest] for curve in curves], 0)
        axes.plot(*mean.T, color=colour, linewidth=2.2, label=label.replace("\n", " "))
    axes.set(xlabel="environment steps", ylabel="success (share of 200 episodes)", ylim=(-0.02, 1.02))
    axes.set_title("Learning: thin lines are seeds, thick ones their mean", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_dots(axes: Axes, results: Any) -> None:
    for x, arm in enumerate(results.arms):
        dots(axes, x, results.values(arm, "success").values(), ARMS[arm][1])
    axes.set_xticks(range(len(results.arms)), [ARMS[arm][0] for arm in results.arms], fontsize="small")
    axes.set(ylabel="success at the end (share)", ylim=(-0.02, 1.02))
    axes.set_title("In the end: a dot per seed, a bar at the mean", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_paths(panel: SubFigure, paths: dict[str, np.ndarray]) -> None:
    panel.suptitle("Forty pegs from one place; only the left slot, in green, counts", fontsize="medium")
    row = panel.subplots(1, len(paths), sharey=True, squeeze=False)[0]
    wide = 0.05
    for axes, (arm, tips) in zip(row, paths.items(), strict=True):
        edges = [-1.0, *(edge for slot in SLOTS for edge in (slot - wide, slot + wide)), 1.0]
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            axes.fill_between([start, end], -0.15, 0, color="0.75", linewidth=0)
        axes.fill_between([-1, 1], -0.2, -0.15, color="0.75", linewidth=0)
        axes.plot([SLOTS[0] - wide, SLOTS[0] + wide], [-0.15, -0.15], color="#2ca02c", linewidth=4)
        axes.plot(tips[:, :, 0].T, tips[:, :, 1].T, color=ARMS[arm][1], linewidth=0.8, alpha=0.6)
        ends = np.array([path[np.isfinite(path[:, 0])][-1] for path in tips])
        axes.plot(*ends.T, "o", color=ARMS[arm][1], markersize=3)
        axes.set(xlim=(-0.7, 0.7), ylim=(-0.2, 0.45), xlabel="x (table units)")
        axes.set_title(ARMS[arm][0].replace("\n", " "), fontsize="medium")
    row[0].set_ylabel("height of the tip (table units)")
