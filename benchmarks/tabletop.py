"""The table of short tasks: steps with states and with pictures, against the bare physics and a process for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import mujoco
import mujoco.rollout
import numpy as np

from benchmarks.table import Row, compare
from reprise.envs.tabletop import Tabletop

STEPS = 10  # in a call


def rows() -> Iterator[Row]:
    """States on one core against mujoco.rollout alone; states and pictures on two against AsyncVectorEnv."""
    for count in (8, 32, 128):
        world, limits = Tabletop(count), {"mujoco.rollout alone": _rollout(Tabletop(count))}
        work, size = f"Tabletop, state, {STEPS} steps, 1 thread", f"{count} environments"
        yield from compare(work, _stepping(world), limits=limits, size=size, tolerance=None)
    for mode in ("state", "image"):
        make = partial(
            gymnasium.make,
            "reprise.envs:reprise/Tabletop-v0",
            obs_mode=mode,
            max_episode_steps=None,
            disable_env_checker=True,
        )
        for count in (4, 8, 16):
            ours = Tabletop(count, mode, threads=2)
            work, size = f"Tabletop, {mode}, {STEPS} steps, 2 threads", f"{count} environments"
            # a process for each environment; sentences are not shared
            theirs = gymnasium.vector.AsyncVectorEnv([make] * count, shared_memory=False, copy=False)
            peers = {"AsyncVectorEnv": _stepping(theirs)}
            yield from compare(work, _stepping(ours), peers, size=size, tolerance=None)
            theirs.close()


def _stepping(env: gymnasium.vector.VectorEnv) -> Callable[[], Any]:
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, env.num_envs, 5)).astype(np.float32)
    env.reset(seed=0)

    def step() -> Any:
        for action in actions:
            result = env.step(action)
        return result[1]

    return step


def _rollout(world: Tabletop) -> Callable[[], Any]:
    """The same physics in one call, nothing observed on the way."""
    world.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, world.num_envs, 5)).astype(np.float32)
    controls = np.stack([world.controls(action) for action in actions], 1).repeat(world.frame_skip, 1)
    data, pool, start = mujoco.MjData(world.model), mujoco.rollout.Rollout(nthread=0), world.state.copy()
    return lambda: pool.rollout(world.model, [data], start, controls)[0]
