"""The figure: filters of every bank, what the layers make of a signal, and how far a shift moves every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullLocator

COLOURS = {"none": "#7f7f7f", "sub": "#9467bd", "avg": "#1f77b4", "max": "#d95f02"}
TICKS, LIMITS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0), (0.03, 1.5)
BANKS = {"haar": "Haar", "morlet": "Morlet", "random": "random", "learned": "learned on digits"}


def draw(results: Any) -> Figure:
    """Filters and maps are left out where the run's files are gone.

    Args:
        results: the finished trials.
    """
    file = results.file("avg", min(results.seeds), "pictures.npz")
    cells = results.cells("error_1")
    columns = max(1, min(4, len(cells)))
    height = 2.5 * -(-len(cells) // columns) + 0.6
    figure = Figure(figsize=(10, height + (5.4 if file else 0)), layout="constrained")
    ratios = [1.7, 3.7, height] if file else [height]
    panels = list(figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0])
    if file:
        _show_filters(panels.pop(0), file)
        _show_layers(panels.pop(0), file)
    _show_errors(panels[0], results, cells, columns)
    return figure


def _show_filters(panel: SubFigure, file: Path) -> None:
    panel.suptitle("Filters of every bank (real part, without the low-pass): the theorem does not ask what they are")
    kept = {name.removeprefix("filters "): array for name, array in np.load(file).items() if name.startswith("filters")}
    for axes, (name, filters) in zip(panel.subplots(1, len(kept), squeeze=False)[0], kept.items(), strict=True):
        framed = np.pad(filters / np.abs(filters).max((1, 2), keepdims=True), ((0, 0), (0, 1), (0, 1)))
        framed = np.concatenate([framed, np.zeros((-len(framed) % 4, *framed.shape[1:]))])
        rows = [np.concatenate(list(framed[i : i + 4]), 1) for i in range(0, len(framed), 4)]
        axes.imshow(np.concatenate(rows), cmap="RdBu", vmin=-1, vmax=1)
        axes.set_axis_off()
        axes.set_title(BANKS.get(name, name), fontsize="medium")


def _show_layers(panel: SubFigure, file: Path) -> None:
    panel.suptitle("A signal and maps of every layer (Haar, modulus, averages): half the side from layer to layer")
    content = dict(np.load(file).items())
    layers = [array for name, array in content.items() if name.startswith("layer")]
    columns = max(len(maps) for maps in layers) + 1
    rows = len(layers) - 1
    grid = panel.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    first = [("signal", content["signal"]), ("layer 0", layers[0][0])]
    for row, maps in enumerate(layers[1:]):
        if row < len(first):
            name, array = first[row]
            grid[row, 0].imshow(array, cmap="gray")
            grid[row, 0].set_title(f"{name}, {len(array)}x{len(array)}", fontsize="small")
        for column, array in enumerate(maps, 1):
            grid[row, column].imshow(array, cmap="gray")
        side = maps.shape[-1]
        grid[row, 1].set_title(f"layer {row + 1}, {side}x{side}", fontsize="small")


def _show_errors(panel: SubFigure, results: Any, cells: list[str], columns: int) -> None:
    rows = -(-len(cells) // columns)
    grid = panel.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    depth = max(layer for layer in range(1, 10) if results.cells(f"error_{layer}"))
    layers = np.arange(1, depth + 1)
    for axes, cell in zip(grid.flat, cells, strict=False):
        for i, (name, arm) in enumerate(results.arms.items()):
            values = [list(results.values(name, f"error_{layer}", cell).values()) for layer in layers]
            places = layers + 0.1 * (i - 1.5)
            colour = COLOURS.get(name, "black")
            axes.plot(places, [np.mean(v) for v in values], color=colour, linewidth=1.5, label=arm.what)
            for place, dots in zip(places, values, strict=True):
                axes.plot([place] * len(dots), dots, "o", color=colour, markersize=3, alpha=0.6)
        bank, _, nonlinearity = cell.partition(" ")
        axes.set_title(f"{BANKS.get(bank, bank)}, {nonlinearity}", fontsize="medium")
        axes.set(yscale="log", xticks=layers)
        axes.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS], minor=False)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(*LIMITS)
        axes.grid(axis="y", alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("error / size of the maps")
    for axes in grid[-1]:
        axes.set_xlabel("layer")
    panel.suptitle("What a shift changes, layer by layer: one dot per seed, a line through the means")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    panel.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
