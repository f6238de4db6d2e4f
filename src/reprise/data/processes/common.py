"""What the simulators share: seeds, sizes, and prices from increments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Array", "Seed", "positive", "prices_from_increments", "rng_of", "sizes"]

Seed = int | Sequence[int]
Array = NDArray[np.float64]


def rng_of(seed: Seed) -> np.random.Generator:
    """A generator of its own for every seed."""
    return np.random.default_rng(seed)


def prices_from_increments(increments: Array, spot: float) -> Tensor:
    """(B, N - 1) increments to (B, 1, N) prices."""
    prices = np.concatenate([np.full((len(increments), 1), spot), spot + increments.cumsum(1)], 1)
    return torch.from_numpy(prices[:, None])


def sizes(n_paths: int, n_dates: int, least: int) -> None:
    """Refuse a batch without paths, or with too few dates."""
    if n_paths < 1 or n_dates < least:
        raise ValueError(f"at least 1 path and {least} date(s) are needed, not {n_paths} and {n_dates}")


def positive(**values: float) -> None:
    """Refuse values that are not finite numbers above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; it must be a finite number above 0")
