"""The figure: where rules stop on geometric Brownian motion, when they stop on other paths, and what they earn."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprise.papers.figures import dots
from reprise.rl.optimal_stopping import binomial

COLOURS = {
    "hold": "#7f7f7f",
    "lsmc": "#1f77b4",
    "lsmc3": "#17becf",
    "dos": "#9467bd",
    "mlp": "#33a02c",
    "cnn": "#d95f02",
}
NAMES = {
    "gbm": "geometric\nBrownian",
    "fbm": "fractional\nBrownian",
    "harmonic": "harmonic,\nrandom phase",
    "harmonic, fixed phase": "harmonic,\nfixed phase",
    "ar2": "AR(2)\nmomentum",
    "narma": "NARMA",
    "heston": "Heston",
    "SP500": "S&P 500",
    "INTC": "Intel",
    "WTI": "crude oil",
}
COMPARED = ("lsmc", "cnn")  # whose stopping times are shown
EXAMPLES = 4  # paths


def draw(results: Any) -> Figure:
    """Two rows; the upper one is left out where the run's files are gone."""
    worlds = [world for world in NAMES if world in results.cells("value")]
    worlds += [world for world in results.cells("value") if world not in worlds]
    seed = min(results.seeds)
    shown = "harmonic" if "harmonic" in worlds else worlds[0]
    files = {world: {arm: results.file(arm, seed, f"{world}.npz") for arm in COMPARED} for world in ("gbm", shown)}
    uppers = [world for world in dict.fromkeys(("gbm", shown)) if all(files[world].values())]
    figure = Figure(figsize=(11, 8.6 if uppers else 4.8), layout="constrained")
    rows = list(figure.subfigures(1 + bool(uppers), 1, squeeze=False, height_ratios=(1, 1.1) if uppers else None)[:, 0])
    if uppers:
        panels = rows.pop(0).subplots(1, len(uppers), squeeze=False)[0]
        for axes, world in zip(panels, uppers, strict=True):
            loaded = {arm: dict(np.load(file)) for arm, file in files[world].items()}
            if world == "gbm":
                _boundary(axes, loaded, results)
            else:
                _examples(axes, loaded, NAMES.get(world, world).replace("\n", " "), results)
    axes = rows[0].subplots()
    _values(axes, results, worlds)
    rows[0].legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    return figure


def _boundary(axes: Axes, loaded: dict[str, Any], results: Any) -> None:
    """Stops as dots over the exact boundary; with the default option and process, for which it is computed."""
    dates = loaded[COMPARED[0]]["paths"].shape[1]
    terms = {"spot": 100, "strike": 100, "rate": 0.05, "volatility": 0.2, "maturity": 3, "dividend": 0.1}
    exact = binomial("call", dates=dates, steps=100 * dates, **terms).boundary
    axes.plot(np.arange(1, dates + 1), exact, "-", color="0.3", label="optimal to stop above (tree)")
    for arm, data in loaded.items():
        early = data["times"] < dates - 1
        stops = data["times"][early]
        at = data["paths"][early, stops]
        axes.plot(stops + 1, at, ".", color=COLOURS[arm], alpha=0.7, label=results.arms[arm].what)
    axes.set(xlabel="exercise date", ylabel="price when stopped", ylim=(95, None))
    axes.set_title("Geometric Brownian motion: early stops and the exact boundary", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _examples(axes: Axes, loaded: dict[str, Any], name: str, results: Any) -> None:
    """Paths of which both rules stop early at different dates, if there are such."""
    first, second = (loaded[arm]["times"] for arm in COMPARED)
    paths = loaded[COMPARED[0]]["paths"]
    chosen = np.argsort(first == second, kind="stable")[:EXAMPLES]
    for path in chosen:
        axes.plot(np.arange(1, paths.shape[1] + 1), paths[path], "-", color="0.7", linewidth=1)
    for arm, marker in zip(COMPARED, ("s", "o"), strict=True):
        times = loaded[arm]["times"][chosen]
        label = f"stop: {results.arms[arm].what}"
        axes.plot(times + 1, paths[chosen, times], marker, color=COLOURS[arm], markersize=7, label=label)
    axes.set(xlabel="exercise date", ylabel="price")
    axes.set_title(f"{name[0].upper()}{name[1:]}: test paths on which the rules part", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _values(axes: Axes, results: Any, worlds: list[str]) -> None:
    """Relative to least-squares Monte Carlo on the last price, seed by seed: the worlds differ in scale."""
    base = {world: results.values(COMPARED[0], "value", world) for world in worlds}
    arms = list(results.arms)
    for i, arm in enumerate(arms):
        for x, world in enumerate(worlds):
            values = results.values(arm, "value", world)
            ratios = [values[seed] / base[world][seed] for seed in values if base[world].get(seed, 0) > 0]
            place = x + 0.13 * (i - (len(arms) - 1) / 2)
            label = results.arms[arm].what if x == 0 else None
            dots(axes, place, ratios, COLOURS.get(arm, "k"), width=0.05, label=label)
    axes.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(worlds)), [NAMES.get(world, world) for world in worlds])
    axes.set(ylabel="payoff / payoff of LSMC on the last price")
    axes.set_title("Mean payoff out of sample: one dot per seed, a bar at the mean", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
