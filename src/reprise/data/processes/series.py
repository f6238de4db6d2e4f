"""Prices with memory: autoregressions, seasons, and real returns put together anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import lfilter
from torch import Tensor

from reprise.data.processes.common import Seed, positive, prices_from_increments, rng_of, sizes

__all__ = ["autoregressive", "block_bootstrap", "harmonic", "narma"]


def autoregressive(
    n_paths: int,
    n_dates: int,
    seed: Seed,
    *,
    coefficients: Sequence[float] = (1.5, -0.75),
    noise: float = 1.0,
    spot: float = 100.0,
) -> Tensor:
    """Prices whose increments are a stationary autoregression: momentum that the last price does not show.

    Args:
        n_paths: B.
        n_dates: N; the first price is the spot.
        seed: of NumPy's generator.
        coefficients: of the increments one, two, ... dates ago. The default swings with a period of 12 dates.
        noise: standard deviation of the innovations.
        spot: first price.

    Returns:
        (B, 1, N) prices, which may become negative.

    Raises:
        ValueError: the coefficients have no stationary law; fewer than 2 dates.

    Example:
        >>> autoregressive(2, 50, seed=0)[..., 0]
        tensor([[100.],
                [100.]], dtype=torch.float64)
    """
    sizes(n_paths, n_dates, 2)
    order = len(coefficients)
    companion = np.eye(order, k=-1)
    companion[0] = coefficients
    if np.abs(np.linalg.eigvals(companion)).max() >= 1:
        raise ValueError(
            f"increments with the coefficients {tuple(coefficients)} have no stationary law; make them smaller"
        )
    shock = np.zeros((order, order))
    shock[0, 0] = noise**2
    rng = rng_of(seed)
    # The last increments before the first date, newest first, from their stationary law.
    past = rng.multivariate_normal(np.zeros(order), solve_discrete_lyapunov(companion, shock), n_paths, method="eigh")
    # What the past adds to the first dates, in the state of the filter (as scipy.signal.lfiltic, for many paths).
    state = np.stack([past[:, : order - i] @ np.asarray(coefficients)[i:] for i in range(order)], 1)
    shocks = noise * rng.standard_normal((n_paths, n_dates - 1))
    increments, _ = lfilter([1.0], [1.0, *(-c for c in coefficients)], shocks, axis=1, zi=state)
    return prices_from_increments(increments, spot)


def narma(
    n_paths: int, n_dates: int, seed: Seed, *, order: int = 2, scale: float = 100.0, spot: float = 100.0
) -> Tensor:
    """Prices with the increments of a nonlinear autoregressive moving average, each path around a level of its own.

    ``y[t+1] = 0.3 y[t] + 0.05 y[t] (y[t] + ... + y[t-order+1]) + 1.5 u[t-order+1] u[t] + 0.1`` with u uniform in
    [0, 1/2]; an increment is ``scale (y[t] - y[J])``, where J is a random date of the same path.

    Args:
        n_paths: B.
        n_dates: N; the first price is the spot.
        seed: of NumPy's generator.
        order: of the recursion.
        scale: price per unit of y.
        spot: first price.

    Returns:
        (B, 1, N) prices, which may become negative.

    Raises:
        ValueError: no paths, fewer than 2 dates, order below 1.

    Source: Felizardo, Matsumoto and Del-Moral-Hernandez, IJCNN 2022; the recursion is Atiya and Parlos', IEEE Trans.
    Neural Networks 2000.

    Example:
        >>> narma(2, 40, seed=0).shape
        torch.Size([2, 1, 40])
    """
    sizes(n_paths, n_dates, 2)
    positive(order=order)
    rng = rng_of(seed)
    u = rng.uniform(0, 0.5, (n_paths, n_dates - 1 + order))
    y = np.zeros((n_paths, n_dates - 1 + order))
    for t in range(order - 1, n_dates - 2 + order):
        window = y[:, t - order + 1 : t + 1].sum(1)
        y[:, t + 1] = 0.3 * y[:, t] + 0.05 * y[:, t] * window + 1.5 * u[:, t - order + 1] * u[:, t] + 0.1
    y = y[:, order:]
    level = np.take_along_axis(y, rng.integers(n_dates - 1, size=(n_paths, 1)), 1)
    return prices_from_increments(scale * (y - level), spot)


def harmonic(
    n_paths: int,
    n_dates: int,
    seed: Seed,
    *,
    frequencies: Sequence[float] = (0.3, 2.0),
    amplitude: float = 0.2,
    noise: float = 0.15,
    length: float = 10.0,
    scale: float = 100.0,
    spot: float = 100.0,
    random_phase: bool = True,
) -> Tensor:
    """Prices whose increments are sine waves and two normal noises, seen at irregular times.

    The N - 1 increments belong to times kept at random from 2N - 1 grid points in [0, length].

    Args:
        n_paths: B.
        n_dates: N; the first price is the spot.
        seed: of NumPy's generator.
        frequencies: of the waves, in cycles per unit of time.
        amplitude: of every wave.
        noise: standard deviation of each of the two noises.
        length: units of time.
        scale: price per unit of the signal.
        spot: first price.
        random_phase: every wave of every path begins at a phase of its own; False is the published process, in which
            the best date to stop at hardly depends on the path.

    Returns:
        (B, 1, N) prices, which may become negative.

    Raises:
        ValueError: no paths, fewer than 2 dates, length not above 0.

    Source: Felizardo, Matsumoto and Del-Moral-Hernandez, IJCNN 2022.

    Example:
        >>> harmonic(2, 50, seed=0).shape
        torch.Size([2, 1, 50])
    """
    sizes(n_paths, n_dates, 2)
    positive(length=length)
    rng = rng_of(seed)
    grid = 2 * n_dates - 1
    kept = np.sort(rng.random((n_paths, grid)).argpartition(n_dates - 2, 1)[:, : n_dates - 1], 1)
    times = kept * (length / (grid - 1))
    signal = noise * math.sqrt(2) * rng.standard_normal(times.shape)
    for frequency in frequencies:
        phase = rng.uniform(0, 2 * np.pi, (n_paths, 1)) if random_phase else 0.0
        signal += amplitude * np.sin(2 * np.pi * frequency * times + phase)
    return prices_from_increments(scale * signal, spot)


def block_bootstrap(
    n_paths: int, n_dates: int, seed: Seed, *, returns: Tensor, block: int | None = None, spot: float = 100.0
) -> Tensor:
    """Paths put together from blocks of consecutive real returns, each block from a random date.

    Args:
        n_paths: B.
        n_dates: N; the first price is the spot, N - 1 returns follow.
        seed: of NumPy's generator.
        returns: (T,) or (T, d) gross returns, price over price before; a block takes the same dates of all assets.
        block: returns per block; None takes whole paths from the record, as the paper does.
        spot: first price of every asset.

    Returns:
        (B, d, N) prices.

    Raises:
        ValueError: returns that are not finite and above 0, a block that is longer than the record, no paths, fewer
            than 2 dates.

    Source: Felizardo, Matsumoto and Del-Moral-Hernandez, IJCNN 2022, for whole paths; Künsch, Annals of Statistics
    1989, for blocks.

    Example:
        >>> block_bootstrap(1, 4, seed=0, returns=torch.tensor([2.0, 2.0, 2.0]), spot=1.0)
        tensor([[[1., 2., 4., 8.]]], dtype=torch.float64)
    """
    sizes(n_paths, n_dates, 2)
    positive(spot=spot)
    values = returns.double().reshape(len(returns), -1).numpy()
    if not (np.isfinite(values) & (values > 0)).all():
        worst = int(np.argmin((np.isfinite(values) & (values > 0)).all(1)))
        raise ValueError(
            f"return {worst} is {values[worst]}: gross returns are finite and above 0; prices must be positive"
        )
    length = n_dates - 1 if block is None else block
    if not 0 < length <= len(values):
        raise ValueError(f"a block of {length} returns does not fit a record of {len(values)}; take shorter blocks")
    starts = rng_of(seed).integers(len(values) - length + 1, size=(n_paths, -(-(n_dates - 1) // length)))
    index = (starts[..., None] + np.arange(length)).reshape(n_paths, -1)[:, : n_dates - 1]
    growth = values[index].transpose(0, 2, 1).cumprod(-1)
    return torch.from_numpy(spot * np.concatenate([np.ones((*growth.shape[:2], 1)), growth], -1))
