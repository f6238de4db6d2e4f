"""All exercise dates in one pass against date by date, and least-squares Monte Carlo against QuantLib."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.table import Row, absent, compare
from reprise.data import simulate
from reprise.rl import LSMC, DOSNetworks, HistoryNetwork, Option, history_cnn
from reprise.rl.optimal_stopping import soft_payoff

DATES, FIT = 50, 2048
PUT = Option("put", strike=40.0, rate=0.06, maturity=1.0)


def rows() -> Iterator[Row]:
    """Scores and gradients of the CNN on 50 dates, steps of Deep Optimal Stopping, an American put."""
    for batch in (64, 256, 1024):
        yield from _networks(batch)
    for count in (10_000, 30_000, 100_000):
        yield from _american_put(count)


def _american_put(count: int) -> Iterator[Row]:
    work = f"American put, {DATES} dates, least squares with cubic polynomials, paths drawn too"
    size = f"{count:,} paths"
    try:
        quantlib = importlib.import_module("QuantLib")
    except ModuleNotFoundError:
        yield from absent(work, "QuantLib", "not installed: pip install QuantLib", size)
        return
    # Both fit on 2,048 paths, QuantLib's default, and take the value from others; of antithetic ones half are drawn.
    yield from compare(
        work,
        lambda: _put(count),
        {"QuantLib MCAmericanEngine, antithetic": lambda: _quantlib(quantlib, count // 2, antithetic=True)},
        defaults={"QuantLib MCAmericanEngine": lambda: _quantlib(quantlib, count, antithetic=False)},
        size=size,
        tolerance=0.1,  # dollars, of about 4.47
    )


def _networks(batch: int) -> Iterator[Row]:
    size = f"{batch} paths"
    paths = simulate("gbm", batch, DATES, 0).float()
    payoffs = Option()(paths)
    cnn = history_cnn(DATES)
    cnn(paths, payoffs)  # fills the running averages
    cnn.eval()
    with torch.inference_mode():
        yield from compare(
            f"CNN over the history, scores at {DATES} dates",
            lambda: cnn(paths, payoffs),
            {"date by date": lambda: _windows(cnn, paths, payoffs)},
            size=size,
        )
    plain = history_cnn(DATES, norm=None)
    plain.dropout = 0.0  # chance and statistics of the batch are the only differences between the two ways
    yield from compare(
        "the same without batch norm and dropout, loss and gradients",
        _step(plain, plain, paths, payoffs),
        {"date by date": _step(lambda x, p: _windows(plain, x, p), plain, paths, payoffs)},
        size=size,
        tolerance=1e-3,
    )
    one_by_one = nn.ModuleList(_dos_net() for _ in range(DATES - 1))

    def separate(x: Tensor, p: Tensor) -> Tensor:
        states = torch.cat([x, p[:, None]], 1).unbind(2)[:-1]
        scores = [net(state) for net, state in zip(one_by_one, states, strict=True)]
        return torch.cat([*scores, torch.zeros(batch, 1)], 1)

    yield from compare(
        f"Deep Optimal Stopping, {DATES - 1} networks, loss and gradients",
        _step(stacked := DOSNetworks(DATES), stacked, paths, payoffs),
        {"one nn.Sequential per date": _step(separate, one_by_one, paths, payoffs)},
        size=size,
        tolerance=None,  # other initial weights
    )


def _dos_net() -> nn.Sequential:
    def layers(before: int, after: int) -> list[nn.Module]:
        return [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]

    return nn.Sequential(nn.BatchNorm1d(2), *layers(2, 41), *layers(41, 41), nn.Linear(41, 1))


def _windows(net: HistoryNetwork, paths: Tensor, payoffs: Tensor) -> Tensor:
    return torch.stack([net.on_window(window) for window in net.windows(paths, payoffs).unbind(1)], 1)


def _step(call: Callable[..., Tensor], net: nn.Module, paths: Tensor, payoffs: Tensor) -> Callable[[], list[Tensor]]:
    def work() -> list[Tensor]:
        loss = soft_payoff(call(paths, payoffs), payoffs)
        return [loss, *torch.autograd.grad(loss, list(net.parameters()))]

    return work


def _put(count: int) -> float:
    market = {"spot": 36.0, "drift": 0.06, "volatility": 0.2, "maturity": 1.0}
    rule = LSMC(PUT, degree=3).fit(simulate("gbm", FIT, DATES, 0, **market))
    return rule.value(simulate("gbm", count, DATES, 1, **market)).mean


def _quantlib(ql: Any, count: int, antithetic: bool) -> float:
    today = ql.Date(1, 1, 2024)
    ql.Settings.instance().evaluationDate = today
    days = ql.Actual365Fixed()
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(36.0)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, days)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, 0.06, days)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), 0.2, days)),
    )
    option = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Put, 40.0), ql.AmericanExercise(today, today + 365))
    option.setPricingEngine(
        ql.MCAmericanEngine(
            process,
            "PseudoRandom",
            timeSteps=DATES,
            antitheticVariate=antithetic,
            requiredSamples=count,
            polynomOrder=3,
            nCalibrationSamples=FIT,
            seed=42,
        )
    )
    return float(option.NPV())
