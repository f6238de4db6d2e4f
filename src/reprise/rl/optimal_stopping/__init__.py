"""Optimal stopping: regression, networks over the last price or the whole history, bounds and closed forms."""

from reprise.rl.optimal_stopping.bounds import upper_bound
from reprise.rl.optimal_stopping.lsmc import LSMC
from reprise.rl.optimal_stopping.networks import DOSNetworks, HistoryNetwork, history_cnn, history_mlp
from reprise.rl.optimal_stopping.neural import NeuralStopper, soft_payoff
from reprise.rl.optimal_stopping.references import (
    HoldToMaturity,
    best_fixed_date,
    binomial,
    black_scholes,
    clairvoyant,
)
from reprise.rl.optimal_stopping.rule import Estimate, Option, StoppingRule, next_stop

__all__ = [
    "LSMC",
    "DOSNetworks",
    "Estimate",
    "HistoryNetwork",
    "HoldToMaturity",
    "NeuralStopper",
    "Option",
    "StoppingRule",
    "best_fixed_date",
    "binomial",
    "black_scholes",
    "clairvoyant",
    "history_cnn",
    "history_mlp",
    "next_stop",
    "soft_payoff",
    "upper_bound",
]
