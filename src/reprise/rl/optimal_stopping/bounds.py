"""An upper bound of the optimal value from any stopping rule, by the martingale of its continuation values.

Source: Rogers, Monte Carlo Valuation of American Options, Mathematical Finance 2002; nested simulation as in Becker,
Cheridito and Jentzen, Deep Optimal Stopping, JMLR 2019, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reprise.rl.optimal_stopping.rule import Estimate, StoppingRule, checked_paths, checked_payoffs, next_stop

__all__ = ["upper_bound"]

Continue = Callable[[Tensor, int, tuple[int, int]], Tensor]


def upper_bound(
    rule: StoppingRule, paths: Tensor, continue_paths: Continue, *, inner: int = 1024, seed: int = 0
) -> Estimate:
    """The mean over paths of ``max_n (p_n - M_n)``, which no rule exceeds in expectation.

    M is a martingale from the first date on. Its increments are ``V_n - C_{n-1}``, with C the mean payoff of following
    the rule on fresh continuations, and V the payoff now where the rule stops, C where it goes on. The better the rule,
    the tighter the bound; few inner paths raise it, and it stays an upper bound.

    Args:
        rule: a fitted rule.
        paths: (K, d, N) outer paths.
        continue_paths: ``continue_paths(history, inner, seed)`` gives fresh continuations (K, inner, d, N - n) of
            histories (K, d, n), say :func:`reprise.data.processes.continue_geometric_brownian`.
        inner: J, continuations of every path at every date.
        seed: seeds them.

    Returns:
        The bound and its standard error. Work and time grow with K J N^2.

    Raises:
        ValueError: continuations of another shape; paths that do not fit the rule.

    Example:
        >>> from reprise.data import simulate
        >>> from reprise.data.processes import continue_geometric_brownian
        >>> from reprise.rl import LSMC, Option
        >>> option, market = Option("put", 40.0, 0.06, 1.0), {"drift": 0.06, "maturity": 1.0}
        >>> rule = LSMC(option).fit(simulate("gbm", 5000, 5, seed=0, spot=36.0, **market))
        >>> paths = simulate("gbm", 200, 5, seed=1, spot=36.0, **market)
        >>> def onward(history, count, seed):
        ...     return continue_geometric_brownian(history, count, 5, seed, **market)
        >>> bound = upper_bound(rule, paths, onward, inner=50)
        >>> bound.mean + 4 * bound.stderr > rule.value(paths).mean
        True
    """
    paths = checked_paths(paths)
    K, d, N = paths.shape
    payoffs = checked_payoffs(rule.payoff, paths).double()
    rule.stopping_times(paths[:1])  # refuses a rule that is not fitted, or fitted on other dates
    stop = rule.decisions(paths)
    stop[:, -1] = True
    going_on = torch.zeros_like(payoffs)  # C_n, not needed at the last date
    for n in range(1, N):
        onward = continue_paths(paths[..., :n], inner, (seed, n))
        if onward.shape != (K, inner, d, N - n):
            raise ValueError(f"continuations have the shape {tuple(onward.shape)}, not {(K, inner, d, N - n)}")
        for some in torch.arange(K).split(max(1, 2**15 // inner)):  # outer paths, so that memory stays small
            past = paths[some, None, :, :n].expand(-1, inner, -1, -1)
            whole = torch.cat([past, onward[some].to(paths)], 3).flatten(0, 1)
            first = next_stop(rule.decisions(whole))[:, n]
            earned = checked_payoffs(rule.payoff, whole).gather(1, first[:, None]).double()
            going_on[some, n - 1] = earned.view(-1, inner).mean(1)
    value = payoffs.where(stop, going_on)
    martingale = torch.cumsum(value[:, 1:] - going_on[:, :-1], 1)
    return Estimate.of((payoffs - torch.nn.functional.pad(martingale, (1, 0))).amax(1))
