"""How many patterns can a memory hold, and how does that grow with the dimension?

Random patterns of -1 and +1 are stored, one bit in ten of some of them is flipped, and one update must bring every bit
back: in the modern Hopfield network, in the classical one, and in dense memories. Patterns, states and the numbers of
patterns that are tried are the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reprise.nn import DenseMemory, HebbianMemory
from reprise.nn.hopfield import update
from reprise.papers.hopfield.drawing import draw

FAILURES = 3  # in a row end the search: recovery falls with N but for chance


@dataclass(frozen=True)
class Settings:
    memory: str = "modern"  # "modern", "hebbian" or "dense"
    degree: int | None = None  # of the dense memory's polynomial; None is exp
    beta: float = 1.0  # inverse temperature of the modern memory
    dimensions: tuple[int, ...] = (8, 12, 16, 20, 24, 28, 32)  # d
    most: int = 20_000  # patterns; and never more than a quarter of the 2^d that there are
    states: int = 200  # tried for each d and N
    flipped: float = 0.1  # share of the bits of a state that are wrong
    required: float = 0.95  # share of the states that must come back whole
    sign_steps: int = 20  # most updates of the classical memory, which runs until it is stable


def prepare(trial: Any) -> dict[int, list[tuple[Tensor, Tensor, Tensor]]]:
    """For each dimension and number of patterns: patterns, noisy states, and which pattern each state was."""
    s, generator = trial.settings, np.random.default_rng(trial.seed)
    return {d: [_draw(d, N, s.states, s.flipped, generator) for N in _grid(d, s.most)] for d in s.dimensions}


def measure(trial: Any) -> dict[str, float]:
    """The capacity at each dimension, and how fast its logarithm grows."""
    s, capacity = trial.settings, {}
    for i, (d, problems) in enumerate(trial.shared.items()):
        capacity[d], failures = 1, 0  # one pattern counts as always held: its logarithm is 0
        for patterns, noisy, answers in problems:
            found = _retrieve(s, patterns.to(trial.device).float(), noisy.to(trial.device).float()).cpu()
            share = float((found == patterns[answers]).all(1).double().mean())
            trial.count(states=len(noisy))
            if share >= s.required:
                capacity[d], failures = len(patterns), 0
            elif (failures := failures + 1) == FAILURES:
                break
        trial.curve("capacity", d, capacity[d])
        trial.progress(i + 1, len(trial.shared))
    slope = float(np.polyfit(list(capacity), np.log(list(capacity.values())), 1)[0])
    return {"slope": slope} | {f"capacity[{d}]": float(count) for d, count in capacity.items()}


def figure(results: Any) -> Figure:
    """The energy that stores patterns, what one update makes of halves of pictures, and the capacities."""
    return draw(results)


def _grid(d: int, most: int) -> list[int]:
    largest = min(most, 2**d / 4)
    return [count for count in (round(2 ** (k / 2)) for k in range(2, 64)) if count <= largest]


def _draw(d: int, N: int, states: int, flipped: float, generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    codes = generator.choice(2**d, N, replace=False)  # all different
    patterns = (2 * (codes[:, None] >> np.arange(d) & 1) - 1).astype(np.int8)
    answers = generator.integers(N, size=states)
    wrong = generator.random((states, d)).argsort(1)[:, : round(flipped * d)]
    noisy = patterns[answers]
    np.put_along_axis(noisy, wrong, -np.take_along_axis(noisy, wrong, 1), 1)
    return torch.from_numpy(patterns), torch.from_numpy(noisy), torch.from_numpy(answers)


def _retrieve(s: Settings, patterns: Tensor, noisy: Tensor) -> Tensor:
    if s.memory == "modern":
        return update(noisy, patterns, s.beta).sign()
    if s.memory == "hebbian":
        return HebbianMemory(patterns)(noisy, steps=s.sign_steps)
    if s.memory == "dense":
        return DenseMemory(patterns, s.degree)(noisy)
    raise ValueError(f'memory is "modern", "hebbian" or "dense", not {s.memory!r}')
