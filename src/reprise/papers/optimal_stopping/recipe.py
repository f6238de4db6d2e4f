"""Is an option worth more to who looks at the whole price history, and not at the last price only?

The same call is exercised by six rules on the same test paths: never before maturity, by least-squares Monte Carlo on
one or three prices, by one network per date on the last price, and by one dense or convolutional network on the
history. Where the last price is all that matters (geometric Brownian motion) they should agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from reprise.data import prices, simulate
from reprise.papers.optimal_stopping.pictures import draw
from reprise.rl import LSMC, DOSNetworks, HoldToMaturity, NeuralStopper, Option, clairvoyant, history_cnn, history_mlp
from reprise.rl.optimal_stopping import StoppingRule
from reprise.training import Diverged

PROCESSES: dict[str, tuple[str, dict[str, Any]]] = {
    "gbm": ("gbm", {}),
    "fbm": ("fbm", {"hurst": 0.7}),
    "harmonic": ("harmonic", {}),
    "harmonic, fixed phase": ("harmonic", {"random_phase": False}),
    "ar2": ("ar2", {}),
    "narma": ("narma", {}),
    "heston": ("heston", {}),
}
SPLITS = ("train", "validation", "test")
SHOWN = 300  # test paths whose stopping times are kept for the figure


@dataclass(frozen=True)
class Settings:
    rule: str = "hold"  # "hold" to maturity, "lsmc", or a network: "dos", "mlp", "cnn"
    worlds: tuple[str, ...] = tuple(PROCESSES)  # or symbols of the data set "prices"
    dates: int = 50  # N, at which one may exercise
    strike: float = 100.0  # of the call; the first price, too
    rate: float = 0.05  # interest per year
    maturity: float = 3.0  # years from first to last date
    lags: int = 1  # last prices that LSMC regresses on
    degree: int = 5  # of its polynomials
    learning_rate: float = 0.05  # of the networks' Adam: divided by 10 after 20, 40 and 60 % of the steps
    steps: int = 300  # of Adam
    batch_size: int = 256  # paths per step, always fresh ones
    validation: int = 20_000  # paths on which the best weights are chosen; LSMC gets as many more to regress on
    test: int = 20_000  # paths, the same for all arms
    record: float = 0.7  # real prices: the earlier share of the days, to train (later 70 % of it) and validate on


def measure(trial: Any) -> dict[str, float]:
    """Fit the rule in every world and count what it earns on fresh paths."""
    s, metrics = trial.settings, {}
    option = Option("call", s.strike, s.rate, s.maturity)
    for number, world in enumerate(s.worlds):
        torch.manual_seed(trial.seed)  # so that a world's numbers do not depend on what else is measured
        sampler = {split: _sampler(world, split, s) for split in SPLITS}
        paths = sampler["test"](s.test, (trial.seed, 0))
        payoffs = option(paths)
        try:
            rule = _fit(trial, option, sampler, world)
            times = rule.stopping_times(paths)
            metrics[f"value[{world}]"] = float(payoffs.gather(1, times[:, None]).mean())
        except Diverged:
            times, metrics[f"value[{world}]"] = torch.full((s.test,), s.dates - 1), 0.0  # the least a call can pay
        metrics[f"early[{world}]"] = float((times < s.dates - 1).double().mean())
        metrics[f"foresight[{world}]"] = clairvoyant(option, paths).mean
        np.savez(trial.folder / f"{world}.npz", paths=paths[:SHOWN, 0].float(), times=times[:SHOWN])
        trial.progress(number + 1, len(s.worlds))
    return metrics


def _fit(trial: Any, option: Option, sampler: dict[str, Callable[..., Tensor]], world: str) -> StoppingRule:
    s = trial.settings
    if s.rule == "hold":
        return HoldToMaturity(option)
    if s.rule == "lsmc":
        paths = sampler["train"](s.steps * s.batch_size + s.validation, (trial.seed, s.steps))
        trial.count(paths=len(paths))
        return LSMC(option, degree=s.degree, lags=s.lags).fit(paths)
    rule = NeuralStopper(option, _network(s).to(trial.device))
    history = rule.fit(
        sampler["train"],
        steps=s.steps,
        batch_size=s.batch_size,
        learning_rate=s.learning_rate,
        validation=sampler["validation"](s.validation, (trial.seed, 0)),
        seed=trial.seed,
        on_step=lambda step, steps, values: trial.curve(f"payoff, {world}", step, values["payoff"]),
    )
    trial.count(paths=history.steps * s.batch_size + s.validation, updates=history.steps)
    return rule


def _network(s: Settings) -> nn.Module:
    if s.rule == "cnn":
        return history_cnn(s.dates, strike=s.strike, maturity=s.maturity)
    if s.rule == "mlp":
        return history_mlp(s.dates)
    if s.rule == "dos":
        return DOSNetworks(s.dates)
    raise ValueError(f'rule is "hold", "lsmc", "dos", "mlp" or "cnn", not {s.rule!r}')


def _sampler(world: str, split: str, s: Settings) -> Callable[[int, tuple[int, int]], Tensor]:
    """Paths of a process, or runs of consecutive real returns from one part of the record."""
    process, options = PROCESSES.get(world, ("bootstrap", {}))
    if process == "bootstrap":
        early, test = prices.load()[world].split(s.record)
        validation, train = early.split(0.3)
        options = {"returns": {"train": train, "validation": validation, "test": test}[split].returns}
    number = SPLITS.index(split)
    return lambda count, seed: simulate(process, count, s.dates, (number, *seed), **options)


def figure(results: Any) -> Figure:
    """Where the rules stop, on which paths, and what that earns."""
    return draw(results)
