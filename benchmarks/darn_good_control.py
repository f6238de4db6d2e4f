"""The vector fishery against stepping one at a time, and tuning a rule on all grid points at once against a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from benchmarks.table import Row, absent, compare
from reprise.envs import FisheryEnv, FisheryVectorEnv
from reprise.envs.fisheries import MODELS
from reprise.rl.darn_good_control import ConstantMortality, evaluate, parameter_grid, tune

N = 64


def rows() -> Iterator[Row]:
    """Steps of 64 environments; mean rewards of 26 x 26 mortalities, 100 episodes each."""
    actions = np.full((N, 2), 0.2, np.float32)
    ours = FisheryVectorEnv(N)
    ours.reset(seed=0)
    sync = gymnasium.vector.SyncVectorEnv([FisheryEnv] * N, autoreset_mode="SameStep")
    sync.reset(seed=0)
    work = f"one step of {N} fisheries of 3 species"
    peers: dict[str, Any] = {"gymnasium, SyncVectorEnv": lambda: sync.step(actions)}
    try:
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError:
        yield from absent(work, "stable-baselines3, DummyVecEnv", "not installed")
    else:
        dummy = DummyVecEnv([FisheryEnv] * N)
        dummy.reset()
        peers["stable-baselines3, DummyVecEnv"] = lambda: dummy.step(actions)
    yield from compare(work, lambda: ours.step(actions), peers, tolerance=None)

    grid = parameter_grid(0.5, 26, 2)
    yield from compare(
        "tuning constant mortality on 676 points, 100 episodes each",
        lambda: tune(ConstantMortality, MODELS[4], grid)[1].max(),
        {"a loop over points, episodes at once": lambda: [evaluate(ConstantMortality(p), MODELS[4]) for p in grid]},
        tolerance=None,
    )
    few = parameter_grid(0.5, 2, 2)
    yield from compare(
        "tuning constant mortality on 4 points, 10 episodes each",
        lambda: tune(ConstantMortality, MODELS[4], few, replicates=10)[1].max(),
        {"a loop over points, episodes and years": lambda: _loop(few, 10)},
        tolerance=None,
    )


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
