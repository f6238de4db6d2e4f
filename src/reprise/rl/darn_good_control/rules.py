"""Harvest rules with one number per species, how they are tuned, and how any rule is judged.

A rule is whatever has ``act(population, t) -> mortality``: populations (N, species) in natural units and the year (from
0) to shares (N, fisheries) to be caught.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reprise.envs.fisheries import BOUND, THRESHOLD, YEARS, Fishery, grow, initial_population, penalty

__all__ = [
    "ConstantEscapement", "ConstantMortality", "Episodes", "Learned", "Rule", "evaluate", "implied_escapement",
    "parameter_grid", "simulate", "tune",
]  # fmt: skip

Floats = NDArray[np.float64]
TOGETHER = 4096  # episodes that are simulated at once while tuning: their arrays stay in the processor's cache


class Rule(Protocol):
    """How much of each harvested species to catch."""

    def act(self, population: Floats, t: int = 0) -> Floats:
        """(N, species) in year t to (N, fisheries)."""


@dataclass
class ConstantMortality:
    """Catch the same share every year.

    Attributes:
        mortality: (fisheries,) in [0, 1], or (N, fisheries), one rule per population.

    Example:
        >>> ConstantMortality([0.3, 0.25]).act(np.ones((1, 3)))
        array([[0.3 , 0.25]])
    """

    mortality: ArrayLike

    def act(self, population: Floats, t: int = 0) -> Floats:
        mortality = np.asarray(self.mortality, dtype=float)
        return np.broadcast_to(mortality, (len(population), mortality.shape[-1]))

    def fraction(self, share: float) -> ConstantMortality:
        """A more cautious rule: that share of the mortality.

        Example:
            >>> ConstantMortality([0.5]).fraction(0.8).mortality
            array([0.4])
        """
        return ConstantMortality(share * np.asarray(self.mortality, dtype=float))


@dataclass
class ConstantEscapement:
    """Catch whatever exceeds a number: the optimum for one species whose growth is concave.

    Attributes:
        escapement: (fisheries,) populations that are let go, or (N, fisheries).

    Example:
        >>> ConstantEscapement([0.5]).act(np.array([[0.4], [1.0]]))[:, 0]
        array([0. , 0.5])
    """

    escapement: ArrayLike

    def act(self, population: Floats, t: int = 0) -> Floats:
        escapement = np.asarray(self.escapement, dtype=float)
        harvested = population[:, : escapement.shape[-1]]
        return (1 - escapement / np.maximum(harvested, 1e-12)).clip(min=0)


@dataclass
class Learned:
    """What a policy of the environment's observations does, as a rule.

    Attributes:
        policy: has ``act(observation, deterministic)``, as :class:`~reprise.rl.PPO` has.
        deterministic: the mean action; the paper evaluates samples.
    """

    policy: Any
    deterministic: bool = True

    def act(self, population: Floats, t: int = 0) -> Floats:
        observation = (population / BOUND).clip(0, 1).astype(np.float32)
        return self.policy.act(observation, deterministic=self.deterministic)


def implied_escapement(rule: Rule, population: Floats, t: int = 0) -> Floats:
    """(N, fisheries) populations that a rule lets go.

    Example:
        >>> implied_escapement(ConstantEscapement([0.5]), np.array([[0.4, 1, 1], [0.8, 1, 1]]))[:, 0]
        array([0.4, 0.5])
    """
    mortality = np.clip(rule.act(population, t), 0, 1)
    return population[:, : mortality.shape[1]] * (1 - mortality)


@dataclass
class Episodes:
    """What became of N episodes.

    Attributes:
        reward: (N,) total, the last year and the cost of near extinction included.
        recorded: (N,) total before the last year, as the published files have it.
        length: (N,) years.
        populations: (years, N, species) before the harvest, NaN after the end; None unless asked for.
        mortalities: (years, N, fisheries), likewise.
    """

    reward: Floats
    recorded: Floats
    length: NDArray[np.int64]
    populations: Floats | None = None
    mortalities: Floats | None = None

    def summary(self, years: int = YEARS) -> dict[str, float]:
        """Mean, deviation and median of the reward; the share of episodes that last all years."""
        return {
            "reward": float(self.reward.mean()),
            "reward_sd": float(self.reward.std()),
            "reward_median": float(np.median(self.reward)),
            "recorded": float(self.recorded.mean()),
            "full": float((self.length == years).mean()),
            "length": float(self.length.mean()),
        }


def simulate(
    rule: Rule, fishery: Fishery, episodes: int, seed: Any, *, years: int = YEARS, record: bool = False
) -> Episodes:
    """Play ``episodes`` side by side. Rules that are given the same seed meet the same weather.

    Args:
        rule: acts on the exact populations.
        fishery: the model.
        episodes: N.
        seed: of ``numpy.random.default_rng``.
        years: at most so long.
        record: keep populations and mortalities.

    Raises:
        ValueError: mortalities of another shape, or NaN.

    Example:
        >>> from reprise.envs.fisheries import MODELS
        >>> simulate(ConstantMortality([0.0, 0.0]), MODELS[3], 10, seed=0).reward.max() > 0
        np.False_
    """
    f, rng = fishery, np.random.default_rng(seed)
    population = initial_population(f, episodes, rng)
    alive = np.ones(episodes, dtype=bool)
    total, last, length = np.zeros(episodes), np.zeros(episodes), np.zeros(episodes, dtype=int)
    kept = np.full((2, years, episodes, f.species), np.nan) if record else None
    for t in range(years):
        mortality = np.clip(rule.act(population, t), 0, 1)
        if mortality.shape != (episodes, f.fisheries) or np.isnan(mortality).any():
            raise ValueError(
                f"a rule gives {(episodes, f.fisheries)} mortalities, not {mortality.shape}"
                + " with NaN" * bool(np.isnan(mortality).any())
            )
        if kept is not None:
            kept[0, t, alive], kept[1, t, alive, : f.fisheries] = population[alive], mortality[alive]
        caught = mortality * population[:, : f.fisheries]
        left = np.array(population)
        left[:, : f.fisheries] -= caught
        population = grow(f, left, t, rng.standard_normal((f.species, episodes)).T)
        extinct = (population <= THRESHOLD).any(1)
        reward = caught.sum(1) + np.where(extinct, penalty(t), 0)
        total[alive] += reward[alive]
        last[alive] = reward[alive]
        length += alive
        alive &= ~extinct
        population[extinct] = f.initial  # over; whatever happens to them is not counted
        if not alive.any():
            break
    populations, mortalities = (None, None) if kept is None else (kept[0], kept[1, ..., : f.fisheries])
    return Episodes(total, total - last, length, populations, mortalities)


def evaluate(rule: Rule, fishery: Fishery, episodes: int = 100, seed: Any = 0, years: int = YEARS) -> dict[str, float]:
    """The summary of :func:`simulate`.

    Example:
        >>> from reprise.envs.fisheries import MODELS
        >>> evaluate(ConstantMortality([0.29]), MODELS[2], 100)["full"]
        1.0
    """
    return simulate(rule, fishery, episodes, seed, years=years).summary(years)


def parameter_grid(high: float, points: int, fisheries: int) -> Floats:
    """(points ** fisheries, fisheries) combinations of ``points`` numbers from 0 to ``high``.

    Raises:
        ValueError: no points.

    Example:
        >>> parameter_grid(1.0, 2, 2).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if points < 1:
        raise ValueError(f"a grid has at least one point, not {points}")
    axis = np.linspace(0, high, points)
    return np.stack(np.meshgrid(*[axis] * fisheries, indexing="ij"), -1).reshape(-1, fisheries)


def tune(
    family: Callable[[Floats], Rule],
    fishery: Fishery,
    grid: Floats,
    *,
    replicates: int = 100,
    seed: int = 0,
    years: int = YEARS,
) -> tuple[Floats, Floats]:
    """The grid point of the highest mean reward over episodes of its own.

    The mean of the winner is too good, as it is the best of many noisy ones: evaluate it on other episodes.

    Args:
        family: rules of (N, fisheries) parameters, one per population.
        fishery: the model.
        grid: (G, fisheries).
        replicates: episodes per point.
        seed: of all of them.
        years: at most so long.

    Returns:
        best point (fisheries,) and mean rewards (G,).

    Raises:
        ValueError: an empty grid.

    Source: section 3.2 of the paper: 101 points, or 51 x 51, over [0, 0.5] for mortalities and [0, 1] for escapements.

    Example:
        >>> from reprise.envs.fisheries import MODELS
        >>> tune(ConstantMortality, MODELS[2], parameter_grid(0.5, 3, 1), replicates=10)[0]
        array([0.25])
    """
    if len(grid) == 0:
        raise ValueError("the grid is empty; see parameter_grid")
    step = max(1, TOGETHER // replicates)
    seeds = np.random.SeedSequence(seed).spawn((len(grid) + step - 1) // step)
    means = []
    for part, own in zip(range(0, len(grid), step), seeds, strict=True):
        parameters = np.repeat(grid[part : part + step], replicates, axis=0)
        result = simulate(family(parameters), fishery, len(parameters), own, years=years)
        means.append(result.reward.reshape(-1, replicates).mean(1))
    table = np.concatenate(means)
    return grid[table.argmax()], table
