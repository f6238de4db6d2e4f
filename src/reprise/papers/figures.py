"""What the figures of several papers have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["dots", "draw_learning"]


def dots(
    axes: Axes, place: float, values: Iterable[float], colour: Any, *, width: float = 0.28, flat: bool = False,
    **style: Any,
) -> None:  # fmt: skip
    """Draw a dot per seed and a bar at their mean.

    Args:
        axes: where.
        place: on the axis of arms.
        values: one per seed; with none nothing is drawn.
        colour: of dots and bar.
        width: half the length of the bar; dots are spread over half of it, so that equal ones are told apart.
        flat: the axis of arms is the vertical one.
        style: of the dots, such as ``label`` or ``marker``.
    """
    values = list(values)
    if not values:
        return
    places = place + width * (np.linspace(-0.5, 0.5, len(values)) if len(values) > 1 else np.zeros(1))
    points = (values, places) if flat else (places, values)
    axes.plot(*points, **{"marker": "o", "linestyle": "", "color": colour, "markersize": 4, "alpha": 0.75, **style})
    (axes.vlines if flat else axes.hlines)(float(np.mean(values)), place - width, place + width, colour, linewidth=2)


def draw_learning(results: Any, metric: str, curve: str, unit: str) -> Figure:
    """How every arm ends, and how it comes there.

    Args:
        results: of an experiment.
        metric: a share; left, a dot per seed.
        curve: by environment steps; right, a line per seed.
        unit: of both.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for x, arm in enumerate(results.arms):
        dots(left, x, results.values(arm, metric).values(), f"C{x}")
        for points in results.curve(arm, curve).values():
            right.plot(*np.transpose(points), color=f"C{x}", linewidth=1, alpha=0.7)
    left.set_xticks(range(len(results.arms)), [arm.what for arm in results.arms.values()])
    left.set(xlim=(-0.5, len(results.arms) - 0.5), ylim=(-0.02, 1.02), ylabel=f"{metric} ({unit})")
    left.set_title("In the end: a dot per seed, a bar at the mean", fontsize="medium")
    right.set(ylim=(-0.02, 1.02), xlabel="environment steps", ylabel=f"{curve} ({unit})")
    right.set_title("Learning: a line per seed", fontsize="medium")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
