"""The figure: success by arm, how it grows, and the last of the way into the slot."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reprise.envs import PegInsert
from reprise.envs.peg import TASKS
from reprise.papers.figures import dots

ARMS = {  # name in the figure and colour
    "bc": ("cloned", "#4d4d4d"),
    "bc_4": ("cloned,\n4 steps", "#9f9f9f"),
    "bc_10x": ("cloned,\n10 times\nthe data", "#2ca02c"),
    "resip": ("ResiP", "#d95f02"),
    "resip_open_loop": ("residual\nper chunk", "#e7a36f"),
    "ppo_chunk": ("PPO on\nchunks", "#1f77b4"),
}
PATHS = ("bc_4", "resip")  # whose pegs are shown


def record_paths(policy: Any, count: int = 24) -> np.ndarray:
    """(count, steps + 1, 2) tips of pegs, x from the middle of their slot; NaN after success.

    Args:
        policy: acts in the world.
        count: pegs, in worlds that are the same in every trial.
    """
    env = PegInsert(count)
    observation, _ = env.reset(seed=0)
    policy.reset()
    slot, over = env.slot.copy(), np.zeros(count, bool)
    tips = [env.tip - [1, 0] * slot]
    for _ in range(env.task.horizon - 1):
        observation, _, terminated, _, infos = env.step(np.clip(policy.act(observation), -1, 1))
        policy.reset(terminated)
        last = np.array([infos["final_obs"][i][:2] if terminated[i] else tip for i, tip in enumerate(env.tip)])
        tips.append(np.where(over[:, None], np.nan, last - [1, 0] * slot))
        over |= terminated
    return np.stack(tips, 1)


def draw(results: Any) -> Figure:
    """Dots and curves; below, where the run's files are still there, the pegs' paths."""
    files = {arm: results.file(arm, min(results.seeds), "paths.npy") for arm in PATHS if arm in results.arms}
    paths = {arm: np.load(file) for arm, file in files.items() if file}
    figure = Figure(figsize=(10, 3.8 + 3.2 * bool(paths)), layout="constrained")
    panels = list(figure.subfigures(1 + bool(paths), 1, squeeze=False)[:, 0])
    left, right = panels[0].subplots(1, 2, width_ratios=(1.2, 1))
    _draw_dots(left, results)
    _draw_curves(right, results)
    if paths:
        _draw_paths(panels[1], paths)
    return figure


def _draw_dots(axes: Axes, results: Any) -> None:
    for x, arm in enumerate(results.arms):
        dots(axes, x, results.values(arm, "success").values(), ARMS[arm][1])
    axes.set_xticks(range(len(results.arms)), [ARMS[arm][0] for arm in results.arms], fontsize="small")
    axes.set(ylabel="success (share of 512 episodes)", ylim=(-0.02, 1.02))
    axes.set_title("In the end: a dot per seed, a bar at the mean", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curves(axes: Axes, results: Any) -> None:
    for arm in results.arms:
        label, colour = ARMS[arm]
        for i, curve in enumerate(results.curve(arm, "success while exploring").values()):
            name = label.replace("\n", " ") if i == 0 else None
            axes.plot(*np.transpose(curve), color=colour, linewidth=1.2, alpha=0.7, label=name)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:g}")
    axes.set(xlabel="thousand environment steps", ylabel="success while exploring (share)", ylim=(-0.02, 1.02))
    axes.set_title("Learning: a line per seed", fontsize="medium")
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_paths(panel: SubFigure, paths: dict[str, np.ndarray]) -> None:
    panel.suptitle("The same 24 pegs on their last way into the slot; the dot is where each ends", fontsize="medium")
    row = panel.subplots(1, len(paths), sharey=True, squeeze=False)[0]
    wide = TASKS["one_slot"].clearance
    for axes, (arm, tips) in zip(row, paths.items(), strict=True):
        for start, end in ((-1.0, -wide), (wide, 1.0)):
            axes.fill_between([start, end], -0.15, 0, color="0.75", linewidth=0)
        axes.fill_between([-1, 1], -0.2, -0.15, color="0.75", linewidth=0)
        axes.plot(tips[:, :, 0].T, tips[:, :, 1].T, color=ARMS[arm][1], linewidth=0.8, alpha=0.6)
        ends = np.array([path[np.isfinite(path[:, 0])][-1] for path in tips])
        axes.plot(*ends.T, "o", color=ARMS[arm][1], markersize=3.5)
        inside = int((ends[:, 1] < -0.1).sum())
        axes.set(xlim=(-0.12, 0.12), ylim=(-0.2, 0.3), xlabel="x from the middle of the slot (table units)")
        axes.set_title(f"{ARMS[arm][0].replace(chr(10), ' ')}: {inside} of {len(tips)} in", fontsize="medium")
    row[0].set_ylabel("height of the tip (table units)")
