"""What stopping rules are measured against: closed forms, trees, no rule at all, and perfect foresight."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from reprise.rl.optimal_stopping.rule import Estimate, Payoff, StoppingRule, checked_paths, checked_payoffs

__all__ = ["HoldToMaturity", "Tree", "best_fixed_date", "binomial", "black_scholes", "clairvoyant"]


class HoldToMaturity(StoppingRule):
    """Never stops before the last date: the European option.

    Example:
        >>> HoldToMaturity(lambda paths: paths[:, 0]).value(torch.tensor([[[3.0, 1.0]], [[0.0, 2.0]]])).mean
        1.5
    """

    def decisions(self, paths: Tensor) -> Tensor:
        """(B, N) False."""
        return paths.new_zeros(len(paths), paths.shape[-1]).bool()

    def _ready(self, paths: Tensor) -> Tensor:
        self.n_dates = paths.shape[-1]
        return checked_paths(paths)


def clairvoyant(payoff: Payoff, paths: Tensor) -> Estimate:
    """The mean over paths of the largest payoff, which only who sees the future gets: above every rule.

    Example:
        >>> clairvoyant(lambda paths: paths[:, 0], torch.tensor([[[3.0, 1.0]], [[0.0, 2.0]]])).mean
        2.5
    """
    return Estimate.of(checked_payoffs(payoff, checked_paths(paths)).amax(1).double())


def best_fixed_date(payoff: Payoff, paths: Tensor) -> Estimate:
    """The best of the rules that stop at the same date on every path, chosen on these paths.

    Example:
        >>> best_fixed_date(lambda paths: paths[:, 0], torch.tensor([[[3.0, 1.0]], [[0.0, 2.5]]])).mean
        1.75
    """
    payoffs = checked_payoffs(payoff, checked_paths(paths))
    return Estimate.of(payoffs[:, int(payoffs.mean(0).argmax())].double())


class Tree(NamedTuple):
    """A binomial value and, at every exercise date, the price at which one becomes indifferent (NaN: there is none)."""

    value: float
    boundary: NDArray[np.float64]


def binomial(
    kind: str,
    *,
    spot: float,
    strike: float,
    rate: float,
    volatility: float,
    maturity: float,
    dividend: float = 0.0,
    dates: int | None = None,
    steps: int = 5000,
) -> Tree:
    """An American or Bermudan option on geometric Brownian motion by the tree of Cox, Ross and Rubinstein.

    Args:
        kind: "call" or "put".
        spot, strike: prices.
        rate, dividend: per year, continuously compounded.
        volatility: per square root of a year.
        maturity: years.
        dates: exercise at ``maturity * n / dates``, n = 1..dates; 1 is European. None: at every step and now.
        steps: of the tree; rounded up to a multiple of ``dates``.

    Raises:
        ValueError: unknown kind; too few steps for this drift.

    Example:
        >>> put = {"spot": 36, "strike": 40, "rate": 0.06, "volatility": 0.2, "maturity": 1}
        >>> round(binomial("put", **put).value, 4)
        4.4867
    """
    if kind not in ("call", "put"):
        raise ValueError(f'kind is "call" or "put", not {kind!r}')
    sign = 1.0 if kind == "call" else -1.0
    every = 1 if dates is None else -(-steps // dates)
    steps = steps if dates is None else every * dates
    dt = maturity / steps
    up = math.exp(volatility * math.sqrt(dt))
    chance = (math.exp((rate - dividend) * dt) - 1 / up) / (up - 1 / up)
    if not 0 < chance < 1:
        raise ValueError(
            f"{steps} steps are too few for this drift and volatility: a tree's chance came out {chance:.3g}"
        )
    discount = math.exp(-rate * dt)
    prices = spot * up ** np.arange(-steps, steps + 1.0)  # every second one belongs to a step
    values = np.maximum(sign * (prices[::2] - strike), 0)
    boundary = np.full(steps // every, np.nan)
    boundary[-1] = strike
    for step in range(steps - 1, -1, -1):
        values = discount * (chance * values[1:] + (1 - chance) * values[:-1])
        if step % every == 0 and (step or dates is None):
            here = prices[steps - step : steps + step + 1 : 2]
            gain = sign * (here - strike)
            stop = gain > values
            if step and stop.any():
                boundary[step // every - 1] = here[stop].min() if kind == "call" else here[stop].max()
            values = np.maximum(values, gain)
    return Tree(float(values[0]), boundary)


def black_scholes(
    kind: str,
    *,
    spot: float,
    strike: float,
    rate: float,
    volatility: float,
    maturity: float,
    dividend: float = 0.0,
) -> float:
    """A European option on geometric Brownian motion; arguments as in :func:`binomial`.

    Raises:
        ValueError: unknown kind.

    Example:
        >>> round(black_scholes("put", spot=36, strike=40, rate=0.06, volatility=0.2, maturity=1), 4)
        3.8443
    """
    if kind not in ("call", "put"):
        raise ValueError(f'kind is "call" or "put", not {kind!r}')
    sign = 1.0 if kind == "call" else -1.0
    spread = volatility * math.sqrt(maturity)
    d1 = (math.log(spot / strike) + (rate - dividend) * maturity) / spread + spread / 2
    ahead = spot * math.exp(-dividend * maturity) * norm.cdf(sign * d1)
    owed = strike * math.exp(-rate * maturity) * norm.cdf(sign * (d1 - spread))
    return float(sign * (ahead - owed))
