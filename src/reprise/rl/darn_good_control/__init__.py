"""Pretty darn good control: when is an approximate solution of a rich model better than a tuned simple rule?

Simple rules and how they are tuned, a learned policy smoothed by a Gaussian process, and the best that could be done.

Source: Montealegre-Mora, Lapeyrolerie, Chapman, Keller and Boettiger, Bulletin of Mathematical Biology 2023, arXiv
2308.13654.
"""

from reprise.rl.darn_good_control.dynamic_program import DynamicProgram
from reprise.rl.darn_good_control.rules import (
    ConstantEscapement,
    ConstantMortality,
    Episodes,
    Learned,
    Rule,
    evaluate,
    implied_escapement,
    parameter_grid,
    simulate,
    tune,
)
from reprise.rl.darn_good_control.smooth import GaussianProcessRule, popular_window, smooth_rule

__all__ = [
    "ConstantEscapement",
    "ConstantMortality",
    "DynamicProgram",
    "Episodes",
    "GaussianProcessRule",
    "Learned",
    "Rule",
    "evaluate",
    "implied_escapement",
    "parameter_grid",
    "popular_window",
    "simulate",
    "smooth_rule",
    "tune",
]
