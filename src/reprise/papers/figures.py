"""What the figures of several papers have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

__all__ = ["dots"]


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
