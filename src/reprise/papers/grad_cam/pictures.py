"""The picture of the idea: the same scenes explained for one object, then for the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reprise.explain import overlay

__all__ = ["figure"]

SHOWN = {"grad_cam": "Grad-CAM", "guided_backprop": "guided backprop", "guided_grad_cam": "Guided Grad-CAM"}
COLOURS = ("#1f77b4", "#e6550d")  # of the first and of the second object
SCENES = 4


def figure(results: Any) -> Figure:
    """Rows are scenes; columns the scene with its objects, then the maps for the first and for the second one."""
    seed = results.seeds[0]
    files = {arm: results.file(arm, seed, "examples.npz") for arm in SHOWN}
    if None in files.values():
        drawing = Figure(figsize=(6, 1.5), layout="constrained")
        drawing.suptitle("No scene with both labels right, or no maps kept: nothing to show", fontsize=10)
        return drawing
    kept = {arm: dict(np.load(path)) for arm, path in files.items()}
    scenes = kept["grad_cam"]
    rows = min(SCENES, len(scenes["pixels"]))
    drawing = Figure(figsize=(11.5, 1.62 * rows + 1.1), layout="constrained")
    drawing.suptitle("Asked about one object, then about the other: which map moves?", fontsize=11)
    parts: Any = drawing.subfigures(1, 3, width_ratios=(1, 3, 3))
    left, *halves = parts
    left.suptitle(" ", fontsize=10)
    for row, axes in enumerate(_panels(left, ["scene"], rows)[:, 0]):
        axes.imshow(scenes["pixels"][row], cmap="gray", vmin=0, vmax=255)
        for box, name, colour in zip(scenes["boxes"][row], scenes["names"][row], COLOURS, strict=True):
            _frame(axes, box, colour)
            label = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
            axes.text(box[1], box[0], name, color="white", fontsize=8, weight="bold", va="top", bbox=label)
    for which, half in enumerate(halves):
        half.suptitle(f"what speaks for the {('blue', 'orange')[which]} one", fontsize=10, color=COLOURS[which])
        panels = _panels(half, list(SHOWN.values()), rows)
        for column, arm in enumerate(SHOWN):
            for row in range(rows):
                axes, heat = panels[row, column], kept[arm]["maps"][row, which]
                if arm == "grad_cam":
                    axes.imshow(overlay(scenes["pixels"][row], heat, alpha=0.55))
                else:
                    axes.imshow(heat, cmap="magma", vmin=0, vmax=max(np.quantile(heat, 0.998), 1e-12))
                _frame(axes, scenes["boxes"][row, which], COLOURS[which])
    return drawing


def _panels(parent: Any, titles: list[str], rows: int) -> np.ndarray:
    panels: np.ndarray = parent.subplots(rows, len(titles), squeeze=False)
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    return panels


def _frame(axes: Axes, box: np.ndarray, colour: str) -> None:
    top, left, bottom, right = box
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.6))
