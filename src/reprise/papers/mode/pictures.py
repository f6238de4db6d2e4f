"""The figure: success by task, the denoiser's error by noise level, and which experts the router takes."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure


def draw(results: Any) -> Figure:
    """Three panels."""
    return Figure()
