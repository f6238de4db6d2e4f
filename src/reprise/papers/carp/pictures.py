"""The figure: a chunk of actions written coarse to fine, what each policy might do next, and what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from reprise.envs.push_t import BOARD, draw_boards
from reprise.papers.figures import dots

COLOURS = {"carp": "#1f77b4", "diffusion": "#d95f02", "per_step": "#2ca02c"}
NAMES = {"carp": "CARP", "diffusion": "Diffusion Policy", "per_step": "step by step"}


def draw(results: Any) -> Figure:
    """Scenes, then numbers; the scenes are left out where the run's files are gone."""
    files = {arm: results.file(arm, min(results.seeds), "scene.npz") for arm in results.arms}
    scenes = {arm: file for arm, file in files.items() if file}
    figure = Figure(figsize=(11, 11.2 if scenes else 4.2), layout="constrained")
    rows = list(
        figure.subfigures(3 if scenes else 1, 1, height_ratios=(3, 3.9, 3.9)[-3 if scenes else -1 :], squeeze=False)[
            :, 0
        ]
    )
    if scenes:
        _coarse_to_fine(rows[0], scenes.get("carp"))
        _samples(rows[1], scenes)
    coverage, error = rows[-1].subplots(1, 2, width_ratios=(2.2, 1))
    _coverage(coverage, results)
    _reconstruction(error, results)
    return figure


def _coarse_to_fine(panel: SubFigure, file: Path | None) -> None:
    """The same chunk from the codes of the first scales alone."""
    panel.suptitle("CARP writes 16 targets of the finger as codes of four scales: the same chunk after each of them")
    if file is None:
        return
    content = np.load(file)
    for k, (axes, path) in enumerate(zip(panel.subplots(1, 4), content["scales"], strict=True)):
        _board(axes, content["pose"])
        _path(axes, path, COLOURS["carp"], 1.0)
        axes.set_title(f"{content['tokens'][: k + 1].sum()} of {content['tokens'].sum()} codes", fontsize="medium")


def _samples(panel: SubFigure, scenes: dict[str, Path]) -> None:
    """Many chunks for the same moment."""
    panel.suptitle("What each policy might do next: 24 chunks drawn where the finger must go around the T")
    for axes, (arm, file) in zip(panel.subplots(1, len(scenes), squeeze=False)[0], scenes.items(), strict=True):
        content = np.load(file)
        _board(axes, content["pose"])
        for path in content["samples"]:
            _path(axes, path, COLOURS[arm], 0.35)
        axes.set_title(f"{NAMES[arm]}, {content['decoding']}", fontsize="medium")


def _board(axes: Axes, pose: np.ndarray) -> None:
    picture = draw_boards(pose[None], (384, 384))[0]
    axes.imshow(picture, extent=(0, BOARD, BOARD, 0), alpha=0.75)
    axes.set(xlim=(50, 430), ylim=(430, 50))
    axes.set_axis_off()


def _path(axes: Axes, path: np.ndarray, colour: str, alpha: float) -> None:
    axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.2, alpha=alpha)
    axes.scatter(path[:, 0], path[:, 1], s=np.linspace(3, 14, len(path)), color=colour, alpha=alpha, linewidths=0)


def _coverage(axes: Axes, results: Any) -> None:
    """A column for each arm and way of decoding."""
    columns = [
        (arm, cell)
        for arm in results.arms
        for cell in results.cells("coverage")
        if results.values(arm, "coverage", cell)
    ]
    for x, (arm, cell) in enumerate(columns):
        dots(axes, x, results.values(arm, "coverage", cell).values(), COLOURS[arm], width=0.25)
    axes.set_xticks(range(len(columns)), [f"{NAMES[arm]}\n{cell}" for arm, cell in columns], fontsize="small")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(title="Largest share of the mark covered", ylabel="coverage / 0.95, mean of boards")


def _reconstruction(axes: Axes, results: Any) -> None:
    cells = results.cells("reconstruction")
    for x, cell in enumerate(cells):
        dots(axes, x, results.values("carp", "reconstruction", cell).values(), COLOURS["carp"], width=0.25)
    axes.set_xticks(range(len(cells)), [f"1-{cell}" if cell != "1" else "1" for cell in cells])
    axes.set(
        yscale="log", title="Error of the codes", xlabel="scales in use", ylabel="mean squared error, actions in -1..1"
    )
    axes.spines[["top", "right"]].set_visible(False)
