"""What all stopping rules share: the payoff of an option, when a rule stops on a path, and what that is worth."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reprise.data.finite import all_finite

__all__ = ["Estimate", "Option", "Payoff", "StoppingRule", "checked_paths", "checked_payoffs", "next_stop"]

Payoff = Callable[[Tensor], Tensor]
KINDS = ("call", "put", "max_call", "asian")


class Estimate(NamedTuple):
    """A mean over paths and its standard error."""

    mean: float
    stderr: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """From one value per path."""
        return cls(float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.inf)


@dataclass(frozen=True)
class Option:
    """The discounted payoff of stopping at each of the dates ``t_n = n T / N``, n = 1..N.

    Calling it on prices (B, d, N) gives payoffs (B, N). Any causal function of that form can stand in its place.

    Args:
        kind: "call" and "put" on one asset, "max_call" on the dearest of several, "asian": a call on the mean of the
            prices so far.
        strike: K, above 0.
        rate: r, per year; payoffs are multiplied by ``exp(-r t_n)``.
        maturity: T, years, above 0.

    Raises:
        ValueError: unknown kind, strike or maturity not above 0; later: prices of several assets for one.

    Example:
        >>> Option("put", strike=10.0, rate=0.0, maturity=1.0)(torch.tensor([[[9.0, 12.0, 7.0]]]))
        tensor([[1., 0., 3.]])
    """

    kind: str = "call"
    strike: float = 100.0
    rate: float = 0.05
    maturity: float = 3.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        for name in ("strike", "maturity"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the {name} is {value}; it must be a finite number above 0")

    def __call__(self, paths: Tensor) -> Tensor:
        """(B, d, N) prices to (B, N) discounted payoffs."""
        if paths.shape[1] > 1 and self.kind != "max_call":
            raise ValueError(f'a {self.kind} has one asset, these paths have {paths.shape[1]}; take "max_call"')
        N = paths.shape[-1]
        dates = torch.arange(1, N + 1, dtype=paths.dtype, device=paths.device)
        prices = paths.amax(1)
        if self.kind == "asian":
            prices = prices.cumsum(-1) / dates
        gain = self.strike - prices if self.kind == "put" else prices - self.strike
        return gain.clamp(min=0) * torch.exp(dates * (-self.rate * self.maturity / N))


class StoppingRule(ABC):
    """Says stop or go on at every date, from the prices up to that date.

    Attributes:
        payoff: what stopping pays: prices (B, d, N) to payoffs (B, N).
        n_dates: N of the paths that it was fitted on; None before.
    """

    def __init__(self, payoff: Payoff) -> None:
        self.payoff = payoff
        self.n_dates: int | None = None

    @abstractmethod
    def decisions(self, paths: Tensor) -> Tensor:
        """(B, d, N) prices to (B, N) booleans: would it stop here, had it come this far? The last date is ignored."""

    def stopping_times(self, paths: Tensor) -> Tensor:
        """The first date at which the rule stops, the last if it never does.

        Args:
            paths: (B, d, N) prices.

        Returns:
            (B,) integers in 0..N-1.

        Raises:
            ValueError: not paths of N dates, or a price that is not finite.
            RuntimeError: the rule has not been fitted.
        """
        return next_stop(self.decisions(self._ready(paths)))[:, 0]

    def value(self, paths: Tensor) -> Estimate:
        """What the rule earns on these paths, on average; on fresh paths this is a lower bound of the optimal value.

        It is the value of stopping at one of the N dates. Where one may also stop today, for a payoff known without
        any rule, the larger of both is what the right is worth.
        """
        times = self.stopping_times(paths)
        return Estimate.of(checked_payoffs(self.payoff, paths).gather(1, times[:, None])[:, 0].double())

    def decide(self, history: Tensor) -> Tensor:
        """Stop now?

        Args:
            history: (B, d, n) prices up to now, n at most N.

        Returns:
            (B,) booleans; all True at the last date.

        Raises:
            ValueError: a history longer than the paths that the rule was fitted on.
            RuntimeError: the rule has not been fitted.
        """
        if self.n_dates is None:
            raise RuntimeError(f"this {type(self).__name__} has not been fitted; call fit first")
        n = history.shape[-1]
        if not 0 < n <= self.n_dates:
            raise ValueError(f"a history of {n} dates came to a rule fitted on paths of {self.n_dates}")
        if n == self.n_dates:
            return torch.ones(len(history), dtype=torch.bool, device=history.device)
        # The rule looks at no later price, so any will do.
        future = history[..., -1:].expand(-1, -1, self.n_dates - n)
        return self.decisions(self._ready(torch.cat([history, future], -1)))[:, n - 1]

    def _ready(self, paths: Tensor) -> Tensor:
        if self.n_dates is None:
            raise RuntimeError(f"this {type(self).__name__} has not been fitted; call fit first")
        paths = checked_paths(paths)
        if paths.shape[-1] != self.n_dates:
            raise ValueError(f"paths of {paths.shape[-1]} dates came to a rule fitted on {self.n_dates}")
        return paths


def next_stop(stop: Tensor) -> Tensor:
    """From every date, the first one from there on at which a rule stops.

    Args:
        stop: (B, N) booleans; the last date counts as True.

    Returns:
        (B, N) integers in 0..N-1.

    Example:
        >>> next_stop(torch.tensor([[False, True, False, False]]))
        tensor([[1, 1, 3, 3]])
    """
    last = stop.shape[1] - 1
    index = torch.arange(last + 1, device=stop.device).expand_as(stop)
    return index.where(stop, last).flip(1).cummin(1).values.flip(1)


def checked_paths(paths: Tensor) -> Tensor:
    """The same paths, if they are (B, d, N) finite prices.

    Raises:
        ValueError: they are not.
    """
    if paths.ndim != 3 or not paths.numel() or not paths.is_floating_point():
        raise ValueError(f"paths are floats (B, d, N), not {paths.dtype} of shape {tuple(paths.shape)}")
    if not all_finite(paths):
        path, _, date = (~paths.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"path {path} has a price at date {date} that is not finite; leave such paths out")
    return paths


def checked_payoffs(payoff: Payoff, paths: Tensor) -> Tensor:
    """``payoff(paths)``, if it is finite and one number per path and date.

    Raises:
        ValueError: it is not.
    """
    values = payoff(paths)
    if values.shape != (len(paths), paths.shape[-1]) or not all_finite(values):
        raise ValueError(
            f"the payoff of paths {tuple(paths.shape)} has shape {tuple(values.shape)} or is not finite; it must give "
            f"{(len(paths), paths.shape[-1])} finite numbers"
        )
    return values
