"""Least-squares Monte Carlo: go on where a regression says that going on is worth more than the payoff now.

From the last date backwards, the discounted cash flows that a path really earns later are regressed on functions of
its prices now; the fitted value serves for the decision only and is never itself carried back. Kept coefficients are
applied to fresh paths, where the first date that stops wins.

Source: Longstaff and Schwartz, Valuing American Options by Simulation, Review of Financial Studies 2001.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, pairwise

import torch
from torch import Tensor

from reprise.rl.optimal_stopping.rule import Payoff, StoppingRule, checked_paths, checked_payoffs

__all__ = ["LSMC"]


class LSMC(StoppingRule):
    """Longstaff-Schwartz: least-squares Monte Carlo.

    Args:
        payoff: prices (B, d, N) to discounted payoffs (B, N), say an :class:`Option`.
        degree: total degree of the regression in all variables together, at least 1.
        basis: "poly": powers of the standardised variables; "laguerre": ``exp(-x/2) L_k(x)`` of prices relative to
            their mean, and a constant, as published; for prices above 0.
        lags: how many of the last prices of every asset are the variables. With one lag the rule sees no history.
            Before there are so many, the first price counts for the missing ones.
        itm_only: regress on paths in the money, and stop only there; where these are fewer than the basis functions,
            nothing can be learned and the rule goes on.

    Raises:
        ValueError: degree or lags below 1, unknown basis.

    Example:
        >>> from reprise.data import simulate
        >>> from reprise.rl import Option
        >>> option = Option("put", strike=40.0, rate=0.06, maturity=1.0)
        >>> market = {"spot": 36.0, "drift": 0.06, "maturity": 1.0}
        >>> rule = LSMC(option).fit(simulate("gbm", 20_000, 50, seed=0, **market))
        >>> abs(rule.value(simulate("gbm", 20_000, 50, seed=1, **market)).mean - 4.478) < 0.07
        True
    """

    def __init__(
        self, payoff: Payoff, *, degree: int = 3, basis: str = "poly", lags: int = 1, itm_only: bool = True
    ) -> None:
        if degree < 1 or lags < 1:
            raise ValueError(f"degree and lags are at least 1, not {degree} and {lags}")
        if basis not in ("poly", "laguerre"):
            raise ValueError(f'basis is "poly" or "laguerre", not {basis!r}')
        super().__init__(payoff)
        self.degree, self.basis, self.lags, self.itm_only = degree, basis, lags, itm_only
        self.regressions: list[tuple[Tensor, Tensor, Tensor] | None] = []

    def fit(self, paths: Tensor) -> LSMC:
        """Regress backwards through the dates.

        Args:
            paths: (B, d, N) prices, N at least 2. Value the rule on others: on these it is biased high.

        Raises:
            ValueError: fewer paths than basis functions, or a price that is not finite (with Laguerre functions:
                above 0).
        """
        paths = checked_paths(paths).double()
        B, d, N = paths.shape
        count = len(self._exponents(d * self.lags))
        if count > B:
            raise ValueError(f"{B} paths are fewer than the {count} basis functions; give more paths or a lower degree")
        if N < 2:
            raise ValueError("with one date there is nothing to decide; paths need two at least")
        payoffs = checked_payoffs(self.payoff, paths).T.contiguous()
        prices = paths.permute(2, 1, 0).contiguous()  # (N, d, B): a date lies in one piece
        self.regressions = [None] * (N - 1)
        earned = payoffs[-1].clone()
        for n in range(N - 2, -1, -1):
            chosen = payoffs[n].gt(0).nonzero()[:, 0] if self.itm_only else torch.arange(B, device=paths.device)
            if len(chosen) < count:
                continue
            x = self._variables(prices, n)[:, chosen]
            center, scale = self._scaling(x)
            features = self._features(x, center, scale)
            target = earned[chosen]
            # Normal equations in doubles are precise enough for standardised variables, and solved by the singular
            # values where columns depend on each other (a constant price, lags before the first date).
            gram = features @ features.T
            solution = torch.linalg.lstsq(gram.cpu(), (features @ target).cpu()[:, None], driver="gelsd").solution
            coefficients = solution[:, 0].to(gram.device)
            self.regressions[n] = (center, scale, coefficients)
            now = payoffs[n][chosen]
            stop = now > coefficients @ features
            earned[chosen[stop]] = now[stop]
        self.n_dates = N
        return self

    def continuation(self, paths: Tensor) -> Tensor:
        """(B, d, N) prices to (B, N) fitted values of going on; infinite where the rule always does, 0 at the end."""
        paths = self._ready(paths).double()
        prices = paths.permute(2, 1, 0).contiguous()
        fitted = prices.new_full((paths.shape[-1], len(paths)), torch.inf)
        fitted[-1] = 0
        for n, regression in enumerate(self.regressions):
            if regression is not None:
                center, scale, coefficients = regression
                fitted[n] = coefficients @ self._features(self._variables(prices, n), center, scale)
        return fitted.T

    def decisions(self, paths: Tensor) -> Tensor:
        """(B, N): the payoff now is above the fitted value of going on (and above 0, with ``itm_only``)."""
        payoffs = checked_payoffs(self.payoff, paths).double()
        stop = payoffs > self.continuation(paths)
        return stop & (payoffs > 0) if self.itm_only else stop

    def _variables(self, prices: Tensor, n: int) -> Tensor:
        """(N, d, B) prices to (d * lags, B) variables of date n: last prices and, before them, levels or changes.

        Polynomials of a total degree in lagged prices are the same functions in the last price and the changes, which
        are much less correlated.
        """
        lagged = [prices[max(n - lag, 0)] for lag in range(self.lags)]
        if self.basis == "laguerre":
            return torch.cat(lagged)
        changes = [later - earlier for later, earlier in pairwise(lagged)]
        return torch.cat([lagged[0], *changes])

    def _scaling(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(1, keepdim=True)
        if self.basis == "laguerre":
            if not bool((x > 0).all()):
                raise ValueError(
                    f'Laguerre functions are for prices above 0, one is {float(x.min())}; take basis="poly"'
                )
            return torch.zeros_like(mean), mean
        spread = x.std(1, keepdim=True, correction=0)
        return mean, spread.where(spread > 1e-9 * (1 + mean.abs()), 1.0)

    def _features(self, x: Tensor, center: Tensor, scale: Tensor) -> Tensor:
        """(variables, B) to (basis functions, B)."""
        z = (x - center) / scale
        table = [torch.ones_like(z)]
        if self.basis == "poly":
            for _ in range(self.degree):
                table.append(table[-1] * z)
        else:
            weight, polynomials = torch.exp(-z / 2), [torch.ones_like(z), 1 - z]
            for k in range(1, self.degree - 1):
                polynomials.append(((2 * k + 1 - z) * polynomials[k] - k * polynomials[k - 1]) / (k + 1))
            table += [weight * polynomial for polynomial in polynomials[: self.degree]]
        exponents = self._exponents(len(z))
        features = torch.ones(len(exponents), z.shape[1], dtype=z.dtype, device=z.device)
        for row, powers in zip(features, exponents, strict=True):
            for variable, power in enumerate(powers):
                if power:
                    row *= table[power][variable]
        return features

    def _exponents(self, variables: int) -> list[tuple[int, ...]]:
        """Of every basis function, the degree in each variable."""
        return [
            tuple(factors.count(variable) for variable in range(variables))
            for total in range(self.degree + 1)
            for factors in combinations_with_replacement(range(variables), total)
        ]
