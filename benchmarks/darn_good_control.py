"""The vector fishery against stepping one at a time, and tuning a rule on all grid points at once against a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from benchmarks.table import Row, absent, compare
from reprise.envs import FisheryEnv, FisheryVectorEnv
from reprise.envs.fisheries import MODELS
from reprise.rl.darn_good_control import ConstantMortality, evaluate, parameter_grid, tune


def rows() -> Iterator[Row]:
    """Steps of three numbers of environments; tuning on three numbers of grid points, of many and of few episodes."""
    for count in (16, 64, 256):
        yield from _steps(count)
    for episodes, sides, peer, theirs in (
        (100, (3, 6, 12), "a loop over points, episodes at once", _point_by_point),
        (10, (2, 3, 4), "a loop over points, episodes and years", _loop),
    ):
        for side in sides:
            grid = parameter_grid(0.5, side, 2)
            yield from compare(
                f"tuning constant mortality, {episodes} episodes a point",
                partial(_tune, grid, episodes),
                {peer: partial(theirs, grid, episodes)},
                size=f"{len(grid)} points",
                tolerance=None,
            )


def _steps(count: int) -> Iterator[Row]:
    work, size, actions = (
        "a step of fisheries of 3 species",
        f"{count} environments",
        np.full((count, 2), 0.2, np.float32),
    )
    ours = FisheryVectorEnv(count)
    ours.reset(seed=0)
    sync = gymnasium.vector.SyncVectorEnv([FisheryEnv] * count, autoreset_mode="SameStep")
    sync.reset(seed=0)
    peers: dict[str, Callable[[], Any]] = {"gymnasium, SyncVectorEnv": lambda: sync.step(actions)}
    try:
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError:
        yield from absent(work, "stable-baselines3, DummyVecEnv", "not installed", size)
    else:
        dummy = DummyVecEnv([FisheryEnv] * count)
        dummy.reset()
        peers["stable-baselines3, DummyVecEnv"] = lambda: dummy.step(actions)
    yield from compare(work, lambda: ours.step(actions), peers, size=size, tolerance=None)


def _tune(grid: np.ndarray, replicates: int) -> float:
    return tune(ConstantMortality, MODELS[4], grid, replicates=replicates)[1].max()


def _point_by_point(grid: np.ndarray, replicates: int) -> list[dict[str, float]]:
    return [evaluate(ConstantMortality(point), MODELS[4], replicates) for point in grid]


def _loop(grid: np.ndarray, replicates: int) -> float:
    """With the environment of one fishery, as the published code tunes."""
    env, best = FisheryEnv(), -np.inf
    for mortality in grid:
        total = 0.0
        for _ in range(replicates):
            env.reset()
            done = False
            while not done:
                _, reward, terminated, truncated, _ = env.step(mortality)
                total += reward
                done = terminated or truncated
        best = max(best, total / replicates)
    return best
