"""Time alternatives for the same work side by side. Only ratios taken in alternation mean anything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["SpeedComparison", "compare_speed"]


@dataclass(frozen=True)
class SpeedComparison:
    """Medians of alternated rounds.

    Attributes:
        medians: seconds per call of each candidate.
        spread: lowest and highest round of each candidate, in seconds per call.
        ratio: median of the last candidate over the median of the first: above 1 where the first is faster.
        self_ratio: the last candidate against itself, odd rounds over even ones: how far chance goes.
        rounds: timed rounds per candidate.
        settled: whether the self-ratio lies in [0.95, 1.05]; a comparison that is not settled proves nothing.
    """

    medians: dict[str, float]
    spread: dict[str, tuple[float, float]]
    ratio: float
    self_ratio: float
    rounds: int
    settled: bool


def compare_speed(
    candidates: dict[str, Callable[[], Any]],
    *,
    threads: int = 1,
    tolerance: float | None = 1e-5,
    rounds: int = 20,
    seconds: float = 2.0,
    launches: int = 3,
) -> SpeedComparison:
    """Check that the candidates do the same work, then time them in alternation.

    Args:
        candidates: two or more functions without arguments, ours first, the one to be compared with last.
        threads: PyTorch threads during the comparison.
        tolerance: largest absolute difference between outputs (tensors, arrays, numbers or nested sequences and
            dictionaries of them); None where outputs cannot be compared.
        rounds: at least so many rounds per candidate.
        seconds: and at least so long per candidate.
        launches: how often to start again while the self-ratio leaves [0.95, 1.05].

    Raises:
        ValueError: fewer than two candidates, or outputs that differ.

    Example:
        >>> x = torch.randn(64, 64)
        >>> result = compare_speed({"ours": lambda: x @ x, "peer": lambda: torch.mm(x, x)}, seconds=0.01)
        >>> sorted(result.medians)
        ['ours', 'peer']
    """
    if len(candidates) < 2:
        raise ValueError("a comparison needs at least two candidates")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if tolerance is not None:
            _check_equal(candidates, tolerance)
        for _ in range(launches):
            comparison = _launch(candidates, rounds, seconds)
            if comparison.settled:
                break
        return comparison
    finally:
        torch.set_num_threads(before)


def _launch(candidates: dict[str, Callable[[], Any]], rounds: int, seconds: float) -> SpeedComparison:
    last = list(candidates)[-1]
    calls = {name: _calls_per_round(function, seconds / rounds) for name, function in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    again: list[float] = []  # the peer a second time in every round, for the self-ratio
    while len(again) < rounds or any(sum(times[name]) * calls[name] < seconds for name in times):
        for name, function in candidates.items():
            times[name].append(_seconds(function, calls[name]))
        again.append(_seconds(candidates[last], calls[last]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    self_ratio = statistics.median(again) / medians[last]
    return SpeedComparison(
        medians=medians,
        spread={name: (min(values), max(values)) for name, values in times.items()},
        ratio=medians[last] / medians[next(iter(candidates))],
        self_ratio=self_ratio,
        rounds=len(again),
        settled=0.95 <= self_ratio <= 1.05,
    )


def _seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def _calls_per_round(function: Callable[[], Any], share: float) -> int:
    function()
    return max(1, round(share / max(_seconds(function, 1), 1e-9)))


def _check_equal(candidates: dict[str, Callable[[], Any]], tolerance: float) -> None:
    names = list(candidates)
    outputs = [_flatten(candidates[name]()) for name in names]
    for name, output in zip(names[1:], outputs[1:], strict=True):
        if [part.shape for part in output] != [part.shape for part in outputs[0]]:
            raise ValueError(f"{name} and {names[0]} return different shapes: they do not do the same work")
        gap = max((float(np.max(np.abs(a - b), initial=0)) for a, b in zip(output, outputs[0], strict=True)), default=0)
        if not gap <= tolerance:
            raise ValueError(f"{name} and {names[0]} differ by {gap:g}, more than {tolerance:g}")


def _flatten(output: Any) -> list[np.ndarray]:
    if isinstance(output, dict):
        return [part for key in sorted(output) for part in _flatten(output[key])]
    if isinstance(output, (list, tuple)):
        return [part for item in output for part in _flatten(item)]
    if isinstance(output, torch.Tensor):
        return [output.detach().cpu().double().numpy()]
    return [np.asarray(output, dtype=float)]
