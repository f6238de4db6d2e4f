"""Random price paths: diffusions, fractional Brownian motion, autoregressions, seasons, and bootstrapped real returns.

Every simulator returns double precision (B, d, N): B paths of d assets at N dates, the same bits for the same seed.
A seed is an integer or a sequence of integers, so that ``(seed, step)`` seeds the batches of a training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reprise.data.processes.common import Seed
from reprise.data.processes.diffusions import (
    continue_geometric_brownian,
    fractional_brownian,
    geometric_brownian,
    heston,
)
from reprise.data.processes.series import autoregressive, block_bootstrap, harmonic, narma

__all__ = [
    "PROCESSES",
    "autoregressive",
    "block_bootstrap",
    "continue_geometric_brownian",
    "fractional_brownian",
    "geometric_brownian",
    "harmonic",
    "heston",
    "narma",
    "simulate",
]


def simulate(process: str, n_paths: int, n_dates: int, seed: Seed, **options: Any) -> Tensor:
    """Paths of a process by its name.

    Args:
        process: "gbm", "fbm" (``100 + 100 B`` from the spot 100 on, over a unit of time), "ar2", "narma", "harmonic",
            "heston" or "bootstrap" (needs ``returns``).
        n_paths: B.
        n_dates: N.
        seed: same seed, same paths.
        **options: of the function behind the name.

    Returns:
        (B, d, N) prices.

    Raises:
        ValueError: unknown process, or options out of range.

    Example:
        >>> simulate("fbm", 5, 50, seed=1, hurst=0.7).shape
        torch.Size([5, 1, 50])
    """
    if process not in PROCESSES:
        raise ValueError(f"unknown process {process!r}; there are {', '.join(PROCESSES)}")
    return PROCESSES[process](n_paths, n_dates, seed, **options)


def _fbm_prices(n_paths: int, n_dates: int, seed: Seed, *, spot: float = 100.0, **options: Any) -> Tensor:
    """``spot (1 + B)`` at N equidistant dates in [0, 1], both ends among them."""
    motion = fractional_brownian(n_paths, n_dates - 1, seed, **options)
    return spot * torch.cat([torch.ones_like(motion[..., :1]), 1 + motion], -1)


PROCESSES: dict[str, Callable[..., Tensor]] = {
    "gbm": geometric_brownian,
    "fbm": _fbm_prices,
    "ar2": autoregressive,
    "narma": narma,
    "harmonic": harmonic,
    "heston": heston,
    "bootstrap": block_bootstrap,
}
