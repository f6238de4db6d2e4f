"""Random price paths: diffusions, fractional Brownian motion, autoregressions, seasons, and bootstrapped real returns.

Every simulator returns double precision (B, d, N): B paths of d assets at N dates, the same bits for the same seed.
A seed is an integer or a sequence of integers, so that ``(seed, step)`` seeds the batches of a training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import lfilter
from torch import Tensor

__all__ = [
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

Seed = int | Sequence[int]
Array = NDArray[np.float64]


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
    _sizes(n_paths, n_dates, 1)
    _positive(spot=spot, maturity=maturity, assets=assets)
    growth = _log_growth(_rng(seed), (n_paths, assets, n_dates), drift, volatility, maturity / n_dates)
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
    growth = _log_growth(_rng(seed), (K, n_paths, d, n_dates - n), drift, volatility, maturity / n_dates)
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
    _sizes(n_paths, n_dates, 1)
    rng, lag = _rng(seed), np.arange(n_dates + 1.0)
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
    _sizes(n_paths, n_dates, 2)
    order = len(coefficients)
    companion = np.eye(order, k=-1)
    companion[0] = coefficients
    if np.abs(np.linalg.eigvals(companion)).max() >= 1:
        raise ValueError(
            f"increments with the coefficients {tuple(coefficients)} have no stationary law; make them smaller"
        )
    shock = np.zeros((order, order))
    shock[0, 0] = noise**2
    rng = _rng(seed)
    # The last increments before the first date, newest first, from their stationary law.
    past = rng.multivariate_normal(np.zeros(order), solve_discrete_lyapunov(companion, shock), n_paths, method="eigh")
    # What the past adds to the first dates, in the state of the filter (as scipy.signal.lfiltic, for many paths).
    state = np.stack([past[:, : order - i] @ np.asarray(coefficients)[i:] for i in range(order)], 1)
    shocks = noise * rng.standard_normal((n_paths, n_dates - 1))
    increments, _ = lfilter([1.0], [1.0, *(-c for c in coefficients)], shocks, axis=1, zi=state)
    return _from_increments(increments, spot)


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
    _sizes(n_paths, n_dates, 2)
    _positive(order=order)
    rng = _rng(seed)
    u = rng.uniform(0, 0.5, (n_paths, n_dates - 1 + order))
    y = np.zeros((n_paths, n_dates - 1 + order))
    for t in range(order - 1, n_dates - 2 + order):
        window = y[:, t - order + 1 : t + 1].sum(1)
        y[:, t + 1] = 0.3 * y[:, t] + 0.05 * y[:, t] * window + 1.5 * u[:, t - order + 1] * u[:, t] + 0.1
    y = y[:, order:]
    level = np.take_along_axis(y, rng.integers(n_dates - 1, size=(n_paths, 1)), 1)
    return _from_increments(scale * (y - level), spot)


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
    _sizes(n_paths, n_dates, 2)
    _positive(length=length)
    rng = _rng(seed)
    grid = 2 * n_dates - 1
    kept = np.sort(rng.random((n_paths, grid)).argpartition(n_dates - 2, 1)[:, : n_dates - 1], 1)
    times = kept * (length / (grid - 1))
    signal = noise * math.sqrt(2) * rng.standard_normal(times.shape)
    for frequency in frequencies:
        phase = rng.uniform(0, 2 * np.pi, (n_paths, 1)) if random_phase else 0.0
        signal += amplitude * np.sin(2 * np.pi * frequency * times + phase)
    return _from_increments(scale * signal, spot)


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
    _sizes(n_paths, n_dates, 2)
    _positive(spot=spot, maturity=maturity)
    if not -1 <= correlation <= 1:
        raise ValueError(f"a correlation lies in [-1, 1], not at {correlation}")
    dt = maturity / (n_dates - 1)
    shocks = _rng(seed).standard_normal((2, n_dates - 1, n_paths))
    shocks[1] = correlation * shocks[0] + math.sqrt(1 - correlation**2) * shocks[1]
    logs, v = np.zeros((n_paths, n_dates)), np.full(n_paths, variance)
    for n in range(n_dates - 1):
        now = v.clip(min=0)
        logs[:, n + 1] = logs[:, n] + (drift - now / 2) * dt + np.sqrt(now * dt) * shocks[0, n]
        v = v + reversion * (long_variance - now) * dt + vol_of_vol * np.sqrt(now * dt) * shocks[1, n]
    return torch.from_numpy(spot * np.exp(logs)[:, None])


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
    _sizes(n_paths, n_dates, 2)
    _positive(spot=spot)
    values = returns.double().reshape(len(returns), -1).numpy()
    if not (np.isfinite(values) & (values > 0)).all():
        worst = int(np.argmin((np.isfinite(values) & (values > 0)).all(1)))
        raise ValueError(
            f"return {worst} is {values[worst]}: gross returns are finite and above 0; prices must be positive"
        )
    length = n_dates - 1 if block is None else block
    if not 0 < length <= len(values):
        raise ValueError(f"a block of {length} returns does not fit a record of {len(values)}; take shorter blocks")
    starts = _rng(seed).integers(len(values) - length + 1, size=(n_paths, -(-(n_dates - 1) // length)))
    index = (starts[..., None] + np.arange(length)).reshape(n_paths, -1)[:, : n_dates - 1]
    growth = values[index].transpose(0, 2, 1).cumprod(-1)
    return torch.from_numpy(spot * np.concatenate([np.ones((*growth.shape[:2], 1)), growth], -1))


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


def _rng(seed: Seed) -> np.random.Generator:
    return np.random.default_rng(seed)


def _log_growth(rng: np.random.Generator, shape: tuple[int, ...], drift: float, volatility: float, dt: float) -> Array:
    if volatility < 0:
        raise ValueError(f"the volatility is {volatility}; it must not be negative")
    return (drift - volatility**2 / 2) * dt + volatility * math.sqrt(dt) * rng.standard_normal(shape)


def _from_increments(increments: Array, spot: float) -> Tensor:
    prices = np.concatenate([np.full((len(increments), 1), spot), spot + increments.cumsum(1)], 1)
    return torch.from_numpy(prices[:, None])


def _sizes(n_paths: int, n_dates: int, least: int) -> None:
    if n_paths < 1 or n_dates < least:
        raise ValueError(f"at least 1 path and {least} date(s) are needed, not {n_paths} and {n_dates}")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; it must be a finite number above 0")
