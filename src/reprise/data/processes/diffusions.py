"""Diffusions: geometric and fractional Brownian motion, and stochastic volatility."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reprise.data.processes.common import Array, Seed, positive, rng_of, sizes

__all__ = ["continue_geometric_brownian", "fractional_brownian", "geometric_brownian", "heston"]


def geometric_brownian(
    n_paths: int,
    n_dates: int,
    seed: Seed,
    *,
    spot: float = 100.0,
    drift: float = -0.05,
    volatility: float = 0.2,
    maturity: float = 3.0,
    assets: int = 1,
) -> Tensor:
    """Independent geometric Brownian motions at the dates ``maturity * n / N``, n = 1..N; the spot is not among them.

    Args:
        n_paths: B.
        n_dates: N.
        seed: of NumPy's generator.
        spot: price at time 0.
        drift: per year; under the pricing measure the interest rate minus the dividend yield, here 0.05 - 0.1.
        volatility: per square root of a year.
        maturity: years.
        assets: d.

    Returns:
        (B, d, N) prices; log-prices are normal with mean ``log(spot) + (drift - volatility**2 / 2) t`` and variance
        ``volatility**2 t``.

    Raises:
        ValueError: no paths or dates; spot or maturity not above 0; negative volatility.

    Source: Becker, Cheridito and Jentzen, Deep Optimal Stopping, JMLR 2019, section 4.1.

    Example:
        >>> geometric_brownian(3, 50, seed=0, assets=2).shape
        torch.Size([3, 2, 50])
    """
    sizes(n_paths, n_dates, 1)
    positive(spot=spot, maturity=maturity, assets=assets)
    growth = _log_growth(rng_of(seed), (n_paths, assets, n_dates), drift, volatility, maturity / n_dates)
    return torch.from_numpy(spot * np.exp(growth.cumsum(-1)))


def continue_geometric_brownian(
    history: Tensor,
    n_paths: int,
    n_dates: int,
    seed: Seed,
    *,
    drift: float = -0.05,
    volatility: float = 0.2,
    maturity: float = 3.0,
) -> Tensor:
    """Fresh continuations of geometric Brownian paths from where they are now, as a dual bound needs them.

    Args:
        history: (K, d, n) prices at the first n of N dates, n at least 1.
        n_paths: J, continuations of each.
        n_dates: N, of a whole path.
        seed, drift, volatility, maturity: as in :func:`geometric_brownian`.

    Returns:
        (K, J, d, N - n) prices.

    Raises:
        ValueError: no history, or one that is as long as a path.

    Example:
        >>> continue_geometric_brownian(torch.full((4, 1, 3), 100.0), 5, 10, seed=0).shape
        torch.Size([4, 5, 1, 7])
    """
    K, d, n = history.shape
    if not 0 < n < n_dates:
        raise ValueError(f"a history of {n} dates cannot be continued to {n_dates}; it needs 1 to {n_dates - 1}")
    growth = _log_growth(rng_of(seed), (K, n_paths, d, n_dates - n), drift, volatility, maturity / n_dates)
    return history[:, None, :, -1:].double() * torch.from_numpy(np.exp(growth.cumsum(-1)))


def fractional_brownian(
    n_paths: int, n_dates: int, seed: Seed, *, hurst: float = 0.7, method: str = "davies-harte"
) -> Tensor:
    """Fractional Brownian motion at the dates n / N, n = 1..N, exact in law.

    Its covariance is ``(s**2H + t**2H - |t - s|**2H) / 2``: H = 1/2 is Brownian motion, H = 1 a random straight line.

    Args:
        n_paths: B.
        n_dates: N.
        seed: of NumPy's generator.
        hurst: H in (0, 1].
        method: "davies-harte" embeds the increments in a circulant, at a cost of N log N; "cholesky" factors their
            covariance matrix, at N**2 a path.

    Returns:
        (B, 1, N) values, 0 at time 0.

    Raises:
        ValueError: H out of range, unknown method, no paths or dates.

    Source: Davies and Harte, Tests for Hurst effect, Biometrika 1987.

    Example:
        >>> line = fractional_brownian(2, 4, seed=0, hurst=1.0)
        >>> torch.allclose(line, line[..., :1] * torch.arange(1, 5))
        True
    """
    if not 0 < hurst <= 1:
        raise ValueError(f"the Hurst exponent lies in (0, 1], not at {hurst}; 0.5 is Brownian motion")
    if method not in ("davies-harte", "cholesky"):
        raise ValueError(f'method is "davies-harte" or "cholesky", not {method!r}')
    sizes(n_paths, n_dates, 1)
    rng, lag = rng_of(seed), np.arange(n_dates + 1.0)
    # Covariance of the increments of a motion with unit steps; self-similarity scales it to [0, 1].
    covariance = (np.abs(lag + 1) ** (2 * hurst) + np.abs(lag - 1) ** (2 * hurst)) / 2 - lag ** (2 * hurst)
    if method == "davies-harte":
        circle = np.concatenate([covariance, covariance[-2:0:-1]])
        eigenvalues = np.fft.fft(circle).real.clip(min=0)  # never negative but for rounding
        noise = rng.standard_normal((2, n_paths, len(circle)))
        # Real and imaginary parts of the transform are two independent samples; one is enough.
        increments = np.fft.fft(np.sqrt(eigenvalues / len(circle)) * (noise[0] + 1j * noise[1])).real[:, :n_dates]
    else:
        index = np.arange(n_dates)
        values, vectors = np.linalg.eigh(covariance[np.abs(index[:, None] - index)])  # singular at H = 1
        root = vectors * np.sqrt(values.clip(min=0))
        increments = rng.standard_normal((n_paths, n_dates)) @ root.T
    return torch.from_numpy(increments.cumsum(-1)[:, None] / n_dates**hurst)


def heston(
    n_paths: int,
    n_dates: int,
    seed: Seed,
    *,
    spot: float = 100.0,
    drift: float = 0.1,
    variance: float = 0.2,
    long_variance: float = 0.04,
    reversion: float = 2.0,
    vol_of_vol: float = 0.3,
    correlation: float = -0.2,
    maturity: float = 3.0,
) -> Tensor:
    """Prices with stochastic volatility: log-Euler steps with the variance truncated at zero.

    Args:
        n_paths: B.
        n_dates: N; the first price is the spot, the others follow at steps of ``maturity / (N - 1)``.
        seed: of NumPy's generator.
        spot: first price.
        drift: per year; the mean price grows by exactly this rate.
        variance, long_variance: at the start and in the long run, per year.
        reversion: rate at which the one goes to the other.
        vol_of_vol: volatility of the variance.
        correlation: of both noises.
        maturity: years.

    Returns:
        (B, 1, N) prices.

    Raises:
        ValueError: no paths, fewer than 2 dates, correlation outside [-1, 1], spot or maturity not above 0.

    Source: Heston, Review of Financial Studies 1993; full truncation after Lord, Koekkoek and van Dijk, 2010. Default
    parameters of Felizardo, Matsumoto and Del-Moral-Hernandez, IJCNN 2022.

    Example:
        >>> heston(2, 50, seed=0).shape
        torch.Size([2, 1, 50])
    """
    sizes(n_paths, n_dates, 2)
    positive(spot=spot, maturity=maturity)
    if not -1 <= correlation <= 1:
        raise ValueError(f"a correlation lies in [-1, 1], not at {correlation}")
    dt = maturity / (n_dates - 1)
    shocks = rng_of(seed).standard_normal((2, n_dates - 1, n_paths))
    shocks[1] = correlation * shocks[0] + math.sqrt(1 - correlation**2) * shocks[1]
    logs, v = np.zeros((n_paths, n_dates)), np.full(n_paths, variance)
    for n in range(n_dates - 1):
        now = v.clip(min=0)
        logs[:, n + 1] = logs[:, n] + (drift - now / 2) * dt + np.sqrt(now * dt) * shocks[0, n]
        v = v + reversion * (long_variance - now) * dt + vol_of_vol * np.sqrt(now * dt) * shocks[1, n]
    return torch.from_numpy(spot * np.exp(logs)[:, None])


def _log_growth(rng: np.random.Generator, shape: tuple[int, ...], drift: float, volatility: float, dt: float) -> Array:
    if volatility < 0:
        raise ValueError(f"the volatility is {volatility}; it must not be negative")
    return (drift - volatility**2 / 2) * dt + volatility * math.sqrt(dt) * rng.standard_normal(shape)
