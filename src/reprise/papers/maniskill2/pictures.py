"""The figures: an expert at work, converted demonstrations, and success on objects that training never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprise.envs.maniskill import make_world, run_expert
from reprise.papers.figures import dots

FILMS = (("PickCube", 3), ("PegInsertionSide", 0))  # families and episodes
COLOURS = ("#d95f02", "#1f77b4", "#1b9e77")


def film_strip(family: str, seed: int, frames: int = 6) -> np.ndarray:
    """Pictures (H, frames * W, 3) side by side of an expert from the start to success, evenly spaced in time."""
    world = make_world(family, control_mode="pd_joint_pos", obs_mode="none")
    world.reset(seed)
    pictures = [world.picture(180, 240)]
    run_expert(world, lambda action: pictures.append(world.picture(180, 240)))
    return np.concatenate([pictures[i] for i in np.linspace(0, len(pictures) - 1, frames).round().astype(int)], 1)


def draw_conversion(results: Any) -> Figure:
    """Experts at work, and success after conversion: one dot per seed, one colour per family.

    Args:
        results: the finished trials.
    """
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    rows = list(figure.subfigures(2, 1, height_ratios=(2.7, 4.7), squeeze=False)[:, 0])
    film = rows[0].subplots()
    film.imshow(np.concatenate([film_strip(*episode) for episode in FILMS]))
    film.set_axis_off()
    film.set_title("Experts at work, from left to right: " + " above, ".join(family for family, _ in FILMS) + " below")
    axes = rows[1].subplots()
    arms = list(results.arms)
    for number, family in enumerate(results.cells("success")):
        for x, arm in enumerate(arms):
            values = list(results.values(arm, "success", family).values())
            dots(axes, x + 0.24 * (number - 0.5), values, COLOURS[number], width=0.08, label=family if x == 0 else None)
    axes.axhline(0.95, color="0.6", linewidth=0.8, linestyle=":")
    axes.text(len(arms) - 0.6, 0.94, "0.95", ha="left", va="top", color="0.5", fontsize="small")
    axes.set_xticks(range(len(arms)), [arm.replace("_", " ") for arm in arms], rotation=20, ha="right")
    axes.set(ylim=(-0.03, 1.03), ylabel="success (share of episodes)")
    axes.set_title("Success of converted demonstrations, replayed from the start")
    axes.legend(frameon=False, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_generalisation(results: Any) -> Figure:
    """Success, and lifts, on training and on held-out objects against the number of training objects.

    Args:
        results: the finished trials.
    """
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    arms = list(results.arms)
    panels = (("success", "The object is at its goal and at rest"), ("lifted", "The object is lifted at all"))
    for axes, (metric, title) in zip(figure.subplots(1, 2, squeeze=False)[0], panels, strict=True):
        for number, (cell, what) in enumerate((("train", "trained on"), ("held-out", "never seen"))):
            means = []
            for x, arm in enumerate(arms):
                values = list(results.values(arm, metric, cell).values())
                label = f"objects {what}" if x == 0 else None
                dots(axes, x + 0.1 * (number - 0.5), values, COLOURS[number], width=0.08, label=label)
                means.append(np.mean(values))
            axes.plot(np.arange(len(arms)) + 0.1 * (number - 0.5), means, color=COLOURS[number], linewidth=1, alpha=0.6)
        axes.set_xticks(range(len(arms)), [results.arms[arm].what.replace(", ", ",\n") for arm in arms])
        axes.set_xlim(-0.5, len(arms) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set(ylabel="share of episodes", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
