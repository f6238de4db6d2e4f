"""Do features become less sensitive to translation with depth, whatever the filters are, and does pooling do it?

Nothing is trained but the small network that gives the learned filters. Signals are moved by three pixels, and the maps
of every layer before and after are compared place by place, relative to their size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from reprise.data import images
from reprise.nn import (
    FeatureExtractor,
    FilterBank,
    feature_distance,
    feature_extractor,
    haar_bank,
    morlet_bank,
    random_bank,
    translation_bound,
)
from reprise.papers.scattering.pictures import draw
from reprise.papers.scattering.signals import crops, on_canvas
from reprise.training import fit

CLAIMED = ("modulus", "relu")  # the other two are reported
SHOWN = 6  # maps of every layer kept for the figure


@dataclass(frozen=True)
class Settings:
    pooling: str = "none"  # "none", "sub", "avg" or "max"
    factor: int = 1  # pooling factor S of every layer
    data: str = "mnist"  # the digits among the signals, and what the learned filters are trained on
    side: int = 64  # of the signals, in pixels
    depth: int = 3  # layers that filter
    photographs: int = 4  # crops per seed
    digits: int = 4  # digits per seed
    banks: tuple[str, ...] = ("haar", "morlet", "random", "learned")  # what is filtered with
    nonlinearities: tuple[str, ...] = ("modulus", "relu", "tanh", "sigmoid")  # the first two are claimed
    shift: int = 3  # pixels, circular, along the rows; no multiple of any pooling factor
    other_shifts: tuple[int, ...] = (1, 2, 4)  # reported, with the modulus
    train: int = 60_000  # pictures for the learned filters, seen once


def prepare(trial: Any) -> dict[str, Any]:
    """This seed's signals and filters."""
    s = trial.settings
    generator = np.random.default_rng(trial.seed)
    train, test = images.load(s.data).draw(trial.seed, s.train, s.digits)
    signals = torch.cat([crops(s.photographs, s.side, generator), on_canvas(test.pixels, s.side)])
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    if "learned" in s.banks:
        fit(net, train.pixels, train.labels, epochs=1, transform=lambda pixels: pixels.float() / 255)
    return {"signals": signals.float(), "conv": net[0], "random_seed": int(generator.integers(2**31))}


def measure(trial: Any) -> dict[str, float]:
    """Move every signal, and compare the maps of every layer."""
    s, shared = trial.settings, trial.shared
    makers: dict[str, Callable[[int], FilterBank]] = {
        "haar": haar_bank,
        "morlet": partial(morlet_bank, J=2, L=4),
        "random": partial(random_bank, seed=shared["random_seed"]),
        "learned": partial(FilterBank.from_conv, shared["conv"]),
    }
    signals = shared["signals"].to(trial.device)
    metrics: dict[str, float] = {}
    by_shift: dict[int, list[float]] = {t: [] for t in (*s.other_shifts, s.shift)}
    for done, (bank, nonlinearity) in enumerate((b, m) for b in s.banks for m in s.nonlinearities):
        trial.progress(done, len(s.banks) * len(s.nonlinearities), f"{bank}, {nonlinearity}")
        network = feature_extractor(makers[bank], s.side, s.depth, nonlinearity, s.pooling, s.factor)
        shifts = (s.shift, *s.other_shifts) if nonlinearity == "modulus" else (s.shift,)
        absolute, relative = _errors(network, signals, shifts)
        cell, claimed = f"[{bank} {nonlinearity}]", nonlinearity in CLAIMED
        if claimed:
            for layer in range(1, s.depth + 1):
                metrics[f"error_{layer}{cell}"] = relative[0, layer]
            metrics |= {f"first{cell}": relative[0, 1], f"last{cell}": relative[0, s.depth]}
            unit = torch.ones(1, device=signals.device)  # the bound of a signal of norm 1
            bound = float(translation_bound(network, unit[None, None, None], s.shift, s.depth))
            metrics[f"of_bound{cell}"] = absolute[0, s.depth] / bound
        else:
            metrics |= {f"bounded_first{cell}": relative[0, 1], f"bounded_last{cell}": relative[0, s.depth]}
        for t, errors in zip(shifts, relative, strict=True):
            if nonlinearity == "modulus":
                by_shift[t].append(errors[s.depth])
    metrics |= {f"by_shift[{t}]": float(np.mean(errors)) for t, errors in by_shift.items() if errors}
    _keep_pictures(trial, {name: makers[name] for name in s.banks}, signals[:1])
    return metrics


@torch.inference_mode()
def _errors(network: FeatureExtractor, signals: Tensor, shifts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean errors (shifts, layers) over signals, relative to the signal, and to the layer's maps."""
    absolute, relative = [], []
    for signal in signals.split(1):  # one at a time stays in the cache
        features = network(signal)
        sizes = feature_distance(features, [torch.zeros_like(maps) for maps in features])
        moved = [feature_distance(network(signal.roll(t, -1)), features) for t in shifts]
        absolute.append(torch.stack(moved)[..., 0] / signal.norm())
        relative.append(torch.stack(moved)[..., 0] / sizes[:, 0].clamp(min=1e-12))
    return tuple(torch.stack(values).mean(0).cpu().double().numpy() for values in (absolute, relative))  # type: ignore[return-value]


@torch.inference_mode()
def _keep_pictures(trial: Any, makers: dict[str, Callable[[int], FilterBank]], signal: Tensor) -> None:
    """The filters of every bank, and what the layers make of one signal by the first of them."""
    s = trial.settings
    kept: dict[str, np.ndarray] = {"signal": signal[0, 0].cpu().numpy()}
    for name, make in makers.items():
        bank = make(32)
        filters = torch.fft.ifft2(bank.filters_hat[bank.propagating[:8]]).real
        kept[f"filters {name}"] = filters.roll((16, 16), (1, 2))[:, 11:22, 11:22].numpy()
    network = feature_extractor(next(iter(makers.values())), s.side, s.depth, "modulus", s.pooling, s.factor)
    for n, maps in enumerate(network(signal)):
        chosen = np.linspace(0, maps.shape[1] - 1, min(SHOWN, maps.shape[1])).round().astype(int)
        kept[f"layer {n}"] = maps[0, chosen].cpu().numpy()
    np.savez(trial.folder / "pictures.npz", **kept)  # type: ignore[arg-type]


def figure(results: Any) -> Figure:
    """Filters, what the layers make of a signal, and the error of every layer."""
    return draw(results)
