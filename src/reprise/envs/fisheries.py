"""Fisheries: populations that grow, compete, eat each other and are harvested, one year a step.

Four stochastic models, from one species to three species of which two are fished while the growth of one declines.
One :func:`grow` serves the vector environment, the single one and whoever simulates policies without either.

Source: Montealegre-Mora, Lapeyrolerie, Chapman, Keller and Boettiger, Pretty darn good control, arXiv 2308.13654,
section 2. The noise multiplies the population: the numbers of the paper come out of that, not of its text.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

__all__ = ["BOUND", "MODELS", "Fishery", "FisheryEnv", "FisheryVectorEnv", "grow", "initial_population", "penalty"]

Floats = NDArray[np.float64]
BOUND = 4.0  # observations are populations over this
THRESHOLD = 0.05  # at or below it a species is nearly extinct
YEARS = 200
INITIAL_NOISE = 0.005 * BOUND  # standard deviation of the first population


@dataclass(frozen=True)
class Fishery:
    """The numbers of one model; populations are shares of the carrying capacity of X.

    Attributes:
        species: 1 (X) or 3 (X, Y and their predator Z).
        fisheries: how many species are harvested, X first.
        r_x, k_x, r_y, k_y: growth rates per year and carrying capacities.
        beta, c: greatest rate at which X is eaten, and the population at which half of it is reached.
        h: predators in the model of one species, where they stay the same.
        c_xy: competition of X and Y.
        b, d, d_z: growth of Z per prey, its appetite for Y against that for X, and its mortality.
        drift: r_x falls linearly to one half over the first hundred years.
        sigma: standard deviation of the noise, as a share of the population.
        initial: populations at the start, give or take 0.02.
    """

    species: int
    fisheries: int
    r_x: float = 1.0
    k_x: float = 1.0
    r_y: float = 1.0
    k_y: float = 1.0
    beta: float = 0.3
    c: float = 0.3
    h: float = 1.0
    c_xy: float = 0.1
    b: float = 0.1
    d: float = 1.1
    d_z: float = 0.1
    drift: bool = False
    sigma: float = 0.1
    initial: tuple[float, ...] = (0.5, 0.5, 0.7)

    def growth_rate(self, t: Any) -> Any:
        """r_x in year t (0-based), for numbers or arrays.

        Example:
            >>> MODELS[4].growth_rate(np.array([0, 50, 150])).tolist()
            [1.0, 0.75, 0.5]
        """
        return self.r_x * (1 - np.minimum(t, 100) / 200) if self.drift else self.r_x

    def perturbed(self, spread: float, rng: np.random.Generator) -> Fishery:
        """Every ecological number times 1 + g, g normal with standard deviation ``spread``.

        Source: the stability study of the paper.
        """
        names = ("r_x", "k_x", "r_y", "k_y", "beta", "c", "c_xy", "b", "d", "d_z")
        factors = 1 + spread * rng.standard_normal(len(names))
        changed: dict[str, Any] = {
            name: getattr(self, name) * factor for name, factor in zip(names, factors, strict=True)
        }
        return dataclasses.replace(self, **changed)


MODELS = {
    1: Fishery(species=1, fisheries=1, beta=0.25, c=0.1, sigma=0.05, initial=(0.7,)),
    2: Fishery(species=3, fisheries=1),
    3: Fishery(species=3, fisheries=2),
    4: Fishery(species=3, fisheries=2, drift=True),
}


def grow(fishery: Fishery, population: Floats, t: Any = 0, noise: Floats | None = None) -> Floats:
    """The populations one year after the harvest.

    Args:
        fishery: the model.
        population: (N, species) after the harvest.
        t: the year, one for all or (N,).
        noise: (N, species) standard normal numbers; None for none.

    Returns:
        (N, species), laid out by species.

    Source: equations 1, 4 and 5 of the paper; all changes are computed from the same populations.

    Example:
        >>> grow(MODELS[3], np.array([[0.5, 0.5, 0.7]])).round(6)
        array([[0.570588, 0.555147, 0.7035  ]])
    """
    f = fishery
    x = population[:, 0]
    r_x, half = f.growth_rate(t), f.c * f.c
    if f.species == 1:
        square = x * x
        change = [r_x * x * (1 - x / f.k_x) - f.beta * f.h * square / (half + square)]
    else:
        y, z = population[:, 1], population[:, 2]
        competition, squares = f.c_xy * x * y, (x * x, y * y)
        eaten = [f.beta * z * square / (half + square) for square in squares]
        change = [
            r_x * x * (1 - x / f.k_x) - eaten[0] - competition,
            f.r_y * y * (1 - y / f.k_y) - f.d * eaten[1] - competition,
            z * (f.b * (x + f.d * y) - f.d_z),
        ]
    result = population.T + np.array(change)
    if noise is not None:
        result += f.sigma * population.T * noise.T
    return (result if f.species > 1 else result.clip(min=0)).T


def initial_population(fishery: Fishery, count: int, rng: np.random.Generator) -> Floats:
    """(count, species) populations in the first year."""
    return np.array(fishery.initial) + INITIAL_NOISE * rng.standard_normal((count, fishery.species))


def penalty(t: Any) -> Any:
    """What near extinction in year t (0-based) adds to the reward: -100 in the first year, -0.5 in the 200th."""
    return -100 / (t + 1)


class FisheryVectorEnv(VectorEnv):
    """``num_envs`` fisheries at once, in NumPy.

    An action is the share of each harvested species that is caught this year, in [0, 1] (clipped); the reward is what
    is caught, in shares of the carrying capacity. An episode is terminated when a species, harvested or not, falls to
    0.05 or below, which costs 100 over the number of the year; after ``time_limit`` years it is truncated. The
    observation is the population over 4, in [0, 1].

    Args:
        num_envs: fisheries.
        model: 1 to 4, or a :class:`Fishery`.
        time_limit: years; None for no limit, as in the published training.
        sigma: instead of the model's.
        seed: of the random numbers until ``reset`` is given another.

    Raises:
        ValueError: no such model; at ``step`` actions of another shape, or NaN.

    Example:
        >>> env = FisheryVectorEnv(8, model=4, seed=0)
        >>> observation, _ = env.reset()
        >>> observation, reward, terminated, truncated, infos = env.step(np.full((8, 2), 0.2))
        >>> observation.shape, bool((reward > 0.1).all())
        ((8, 3), True)
    """

    def __init__(
        self,
        num_envs: int = 1,
        model: int | Fishery = 4,
        *,
        time_limit: int | None = YEARS,
        sigma: float | None = None,
        seed: int | None = None,
    ) -> None:
        if not isinstance(model, Fishery):
            if model not in MODELS:
                raise ValueError(f"there are models 1 to 4, not {model!r}")
            model = MODELS[model]
        self.fishery = model if sigma is None else dataclasses.replace(model, sigma=sigma)
        self.num_envs, self.time_limit = num_envs, time_limit
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = Box(0, 1, (model.species,), np.float32)
        self.single_action_space = Box(0, 1, (model.fisheries,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.rng = np.random.default_rng(seed)
        self.population: Floats = np.empty((num_envs, model.species))
        self.t = np.zeros(num_envs, dtype=int)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """All fisheries in their first year."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.population = initial_population(self.fishery, self.num_envs, self.rng)
        self.t[:] = 0
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One year: harvest, growth, count."""
        f, actions = self.fishery, np.asarray(actions, dtype=float)
        if actions.shape != (self.num_envs, f.fisheries):
            raise ValueError(f"actions are mortalities {(self.num_envs, f.fisheries)}, not {actions.shape}")
        if np.isnan(actions).any():
            raise ValueError(f"the action of environment {np.isnan(actions).any(1).argmax()} is NaN")
        caught = actions.clip(0, 1) * self.population[:, : f.fisheries]
        self.population[:, : f.fisheries] -= caught
        noise = self.rng.standard_normal(self.population.shape)
        self.population = grow(f, self.population, self.t, noise)
        terminated = (self.population <= THRESHOLD).any(1)
        reward = caught.sum(1) + np.where(terminated, penalty(self.t), 0)
        self.t += 1
        truncated = ~terminated & (self.t >= (self.time_limit or np.inf))
        infos: dict[str, Any] = {}
        if (done := terminated | truncated).any():
            infos = {"final_obs": self._observe(), "_final_obs": done}
            self.population[done] = initial_population(f, int(done.sum()), self.rng)
            self.t[done] = 0
        return self._observe(), reward, terminated, truncated, infos

    def _observe(self) -> NDArray[np.float32]:
        return (self.population / BOUND).clip(0, 1).astype(np.float32)


class FisheryEnv(gymnasium.Env):
    """One fishery; arguments and behaviour as of :class:`FisheryVectorEnv`, registered as ``reprise/Fishery-v0``.

    Example:
        >>> env = gymnasium.make("reprise/Fishery-v0", model=1)
        >>> observation, _ = env.reset(seed=0)
        >>> observation.shape, env.action_space.shape
        ((1,), (1,))
    """

    def __init__(self, model: int | Fishery = 4, **options: Any) -> None:
        self.many = FisheryVectorEnv(1, model, **options)
        self.observation_space, self.action_space = self.many.single_observation_space, self.many.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first year."""
        super().reset(seed=seed)
        return self.many.reset(seed=seed)[0][0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One year."""
        observation, reward, terminated, truncated, infos = self.many.step(np.asarray(action)[None])
        last = infos["final_obs"] if infos else observation
        return last[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


gymnasium.register("reprise/Fishery-v0", f"{__name__}:FisheryEnv", vector_entry_point=f"{__name__}:FisheryVectorEnv")
