"""Steps of vectorised worlds against Gymnasium's vector environments, mujoco.rollout alone, and gym-pusht.

Gymnasium's side hands out its observations without a copy and without its checks: the best that its user can choose;
the number of AsyncVectorEnv's processes is that of the environments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import mujoco.rollout
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from benchmarks.table import Row, absent, compare
from reprise.envs import MujocoWorld, PushT
from reprise.envs.vector import Info

COUNTS = 4, 8, 16  # environments; AsyncVectorEnv starts a process for each
STEPS = 10  # in a call


class HalfCheetah(MujocoWorld):
    """Gymnasium's HalfCheetah-v5: its model, observations and rewards."""

    def __init__(self, num_envs: int, threads: int = 1) -> None:
        path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
        model = mujoco.MjModel.from_xml_path(str(path))
        box = spaces.Box(-np.inf, np.inf, (17,), np.float64)
        super().__init__(
            model, num_envs, box, spaces.Box(-1, 1, (6,)), max_episode_steps=1000, frame_skip=5, threads=threads
        )
        self.place = np.zeros(num_envs)

    def begin(self, index: int, data: mujoco.MjData, rng: np.random.Generator, options: Mapping[str, Any]) -> None:
        data.qpos[:] = rng.uniform(-0.1, 0.1, 9)
        data.qvel[:] = 0.1 * rng.standard_normal(9)
        self.place[index] = data.qpos[0]

    def outcome(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        speed = (self.qpos[:, 0] - self.place) / 0.05
        self.place[:] = self.qpos[:, 0]
        return speed - 0.1 * np.square(actions).sum(1), np.zeros(self.num_envs, bool), {"x_velocity": speed}

    def observe(self, indices: np.ndarray) -> np.ndarray:
        return np.concatenate([self.qpos[indices, 1:], self.qvel[indices]], 1)


def rows() -> Iterator[Row]:
    """HalfCheetah on one core and on both; Push-T with states and with pictures."""
    for count in (4, 16, 64):
        ours, actions = HalfCheetah(count), np.random.default_rng(0).uniform(-1, 1, (count, 6)).astype(np.float32)
        work, limits = f"HalfCheetah-v5, {STEPS} steps, 1 thread", {"mujoco.rollout alone": _rollout(ours, actions)}
        yield from _against(SyncVectorEnv, work, ours, actions, "HalfCheetah-v5")
        yield from compare(work, _stepping(ours, actions), limits=limits, size=_size(count), tolerance=None)
    for count in COUNTS:
        ours, actions = HalfCheetah(count, 2), np.random.default_rng(0).uniform(-1, 1, (count, 6)).astype(np.float32)
        yield from _against(
            AsyncVectorEnv, f"HalfCheetah-v5, {STEPS} steps, 2 threads", ours, actions, "HalfCheetah-v5"
        )
    for mode, theirs in (("state", "state"), ("image", "pixels")):
        for count in COUNTS:
            aims = np.random.default_rng(0).uniform(100, 400, (count, 2)).astype(np.float32)
            what = "96x96 pictures" if mode == "image" else "states"
            work, ours = f"Push-T, {what}, {STEPS} steps", PushT(count, obs_mode=mode)
            for kind in (SyncVectorEnv, AsyncVectorEnv):
                yield from _against(kind, work, ours, aims, "gym_pusht:gym_pusht/PushT-v0", obs_type=theirs)


def _against(
    kind: type[VectorEnv], work: str, ours: VectorEnv, actions: np.ndarray, name: str, **options: Any
) -> Iterator[Row]:
    """One process, or one for each environment."""
    peer, size = f"{name.split(':')[-1]} in {kind.__name__}", _size(ours.num_envs)
    try:
        env = kind([partial(gymnasium.make, name, disable_env_checker=True, **options)] * ours.num_envs, copy=False)
    except Exception as error:  # whatever Gymnasium says where the world, or what it needs, is missing
        yield from absent(work, peer, str(error), size)
        return
    peers = {peer: _stepping(env, actions)}
    yield from compare(work, _stepping(ours, actions), peers, size=size, tolerance=None)
    env.close()


def _size(count: int) -> str:
    return f"{count} environments"


def _stepping(env: VectorEnv, actions: np.ndarray) -> Callable[[], Any]:
    env.reset(seed=0)

    def step() -> Any:
        for _ in range(STEPS):
            result = env.step(actions)
        return result[0]

    return step


def _rollout(world: HalfCheetah, actions: np.ndarray) -> Callable[[], Any]:
    """The physics of all steps in one call, nothing observed on the way."""
    world.reset(seed=0)
    controls = np.repeat(actions[:, None].astype(np.float64), STEPS * world.frame_skip, 1)
    data = [mujoco.MjData(world.model) for _ in world._data]
    pool = mujoco.rollout.Rollout(nthread=len(data) if len(data) > 1 else 0)

    def roll() -> Any:
        return pool.rollout(world.model, data, world.state, controls)[0]

    return roll
