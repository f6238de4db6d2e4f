"""Does the error of features grow in proportion to a small deformation, and for cartoons by its square root?

Smooth random displacements of up to two pixels move band-limited pictures, and cartoons with hard edges; the slope of
the logarithm of the error against that of the displacement is the exponent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.nn import (
    FilterBank,
    deform,
    deformation_error,
    feature_extractor,
    haar_bank,
    jacobian_norm,
    random_bank,
    random_displacement,
)
from reprise.papers.scattering.signals import Cartoon, blur, crops


@dataclass(frozen=True)
class Settings:
    signals: str = "band_limited"  # "band_limited": blurred photographs; "cartoon": discs with hard edges
    side: int = 64  # pixels
    count: int = 4  # signals per seed, each with a displacement field of its own
    sigma: float = 2.0  # of the blur, in pixels
    discs: int = 3  # per cartoon
    sizes: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)  # largest displacement, in pixels
    depth: int = 2  # layers, modulus, averages with S = 2


def measure(trial: Any) -> dict[str, float]:
    """Fit one slope per bank over this seed's signals."""
    s = trial.settings
    generator = np.random.default_rng(trial.seed)
    fields = [_displacement(s.side, max(s.sizes), generator) for _ in range(s.count)]
    pairs = _cartoons(s, fields, generator) if s.signals == "cartoon" else _pictures(s, fields, generator)
    signals, deformed = (torch.cat(part).to(trial.device) for part in zip(*pairs, strict=True))
    raw = (deformed - signals).flatten(1).norm(dim=1)
    metrics = {"signal_slope": _slope(s.sizes, raw)}
    banks: dict[str, Callable[[int], FilterBank]] = {
        "haar": haar_bank,
        "random": partial(random_bank, seed=int(generator.integers(2**31))),
    }
    for done, (name, bank) in enumerate(banks.items()):
        trial.progress(done, len(banks), name)
        network = feature_extractor(bank, s.side, s.depth)
        with torch.inference_mode():
            error = deformation_error(network, signals, deformed)
        metrics[f"slope[{name}]"] = _slope(s.sizes, error)
        metrics[f"of_signal[{name}]"] = float((error / raw).max())
        for size, value in zip(s.sizes, error.view(len(s.sizes), -1).mean(1), strict=True):
            trial.curve(f"error, {name}", size, float(value))
    return metrics


def _displacement(side: int, largest: float, generator: np.random.Generator) -> Tensor:
    """A field of largest displacement 1 that may grow to ``largest`` without folding."""
    while True:
        tau = random_displacement(side, 1.0, int(generator.integers(2**31)))
        if largest * jacobian_norm(tau) <= 0.25:
            return tau


def _pictures(s: Settings, fields: list[Tensor], generator: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """Pairs (f, f deformed), size by size and in each signal by signal."""
    pictures = blur(crops(s.count, s.side, generator), s.sigma).split(1)
    return [(f, deform(f, size * tau)) for size in s.sizes for f, tau in zip(pictures, fields, strict=True)]


def _cartoons(s: Settings, fields: list[Tensor], generator: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    cartoons = [Cartoon(s.side, s.discs, generator) for _ in range(s.count)]
    return [(f.render(), f.render(size * tau)) for size in s.sizes for f, tau in zip(cartoons, fields, strict=True)]


def _slope(sizes: tuple[float, ...], errors: Tensor) -> float:
    """Exponent of the error's growth: least squares on logarithms, signals averaged."""
    logarithms = errors.view(len(sizes), -1).clamp(min=1e-12).log().mean(1).cpu().numpy()
    return float(np.polyfit(np.log(sizes), logarithms, 1)[0])
