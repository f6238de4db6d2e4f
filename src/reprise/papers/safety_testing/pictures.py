"""The figure: where the key points are, what was changed, and how near each way of attacking came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle

from reprise.papers.figures import dots
from reprise.safety import saliency_distribution, sift_features

COLOURS = ("#d95f02", "#e6ab02", "#7f7f7f", "#1f77b4", "#6baed6", "#08519c", "#9ecae1", "#31a354")
SHOWN = 4  # pictures


def draw(results: Any) -> Figure:
    """Pictures with their key points and what two arms made of them, distances as dots, and distance by queries."""
    first = next(iter(results.arms))
    names = [first, next((name for name in results.arms if name.startswith("jsma")), list(results.arms)[-1])]
    files = {name: file for name in names if (file := results.file(name, min(results.seeds), "pictures.npz"))}
    figure = Figure(figsize=(11, 10.5 if files else 4.2), layout="constrained")
    rows = list(figure.subfigures(2 if files else 1, 1, height_ratios=(6, 4.2) if files else None, squeeze=False)[:, 0])
    if files:
        _show_pictures(rows.pop(0), files, results)
    distances, curves = rows[0].subplots(1, 2, width_ratios=(3, 2))
    for i, (name, arm) in enumerate(results.arms.items()):
        colour = COLOURS[i % len(COLOURS)]
        dots(distances, i, results.values(name, "distance").values(), colour, flat=True)
        points = list(results.curve(name, "best distance so far, by queries").values())
        if points:
            mean = np.mean(points, 0)
            curves.plot(mean[:, 0], mean[:, 1], color=colour, label=arm.what)
    distances.set_yticks(range(len(results.arms)), [arm.what for arm in results.arms.values()])
    distances.invert_yaxis()
    distances.set(xlabel="changed pixels (L0), mean over pictures", xlim=(0, None))
    distances.set_title("Nearest adversarial image: a dot per seed, a bar at the mean")
    curves.set(yscale="log", xlabel="queries per picture", ylabel="best distance so far (pixels)")
    curves.set_title("What more queries bring")
    curves.legend(frameon=False, fontsize="small")
    for axes in (distances, curves):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _show_pictures(panel: SubFigure, files: dict[str, Path], results: Any) -> None:
    """A column per picture: key points, saliency, and the adversarial image of each arm with its changed pixels."""
    kept = {name: dict(np.load(file)) for name, file in files.items()}
    originals = next(iter(kept.values()))["originals"][:SHOWN]
    grid = panel.subplots(len(originals), 2 + len(kept), squeeze=False)
    panel.suptitle("Changed pixels: orange went to white, blue to black")
    for row, (axes, pixels) in enumerate(zip(grid, originals, strict=True)):
        features = sift_features(torch.from_numpy(pixels)[None])
        axes[0].imshow(pixels, cmap="gray", vmin=0, vmax=1)
        strongest = features.weights.max() if len(features) else 1
        for (y, x), size, weight in zip(features.positions, features.sizes, features.weights, strict=True):
            alpha = 0.25 + 0.75 * weight / strongest
            axes[0].add_patch(Circle((x - 0.5, y - 0.5), size / 2, fill=False, color="#66c2a5", alpha=alpha))
        if len(features):
            axes[1].imshow(saliency_distribution(features, pixels.shape), cmap="magma")
        for place, arrays in zip(axes[2:], kept.values(), strict=True):
            _show_changes(place, pixels, arrays["attacked"][row])
            count = int((arrays["attacked"][row] != pixels).sum())
            place.set_xlabel(
                f"{arrays['labels'][row]} seen as {arrays['named'][row]}, {count} pixels", fontsize="small"
            )
        for place in axes:
            place.set_xticks([])
            place.set_yticks([])
    for place, title in zip(
        grid[0], ("SIFT key points", "saliency", *(results.arms[n].what for n in kept)), strict=True
    ):
        place.set_title(title, fontsize="medium")


def _show_changes(axes: Axes, before: np.ndarray, after: np.ndarray) -> None:
    shown = np.repeat(after[..., None], 3, 2)
    shown[after > before] = (1.0, 0.55, 0.1)
    shown[after < before] = (0.15, 0.45, 1.0)
    axes.imshow(shown)
