"""Steps of vectorised worlds against Gymnasium's vector environments, mujoco.rollout alone, and gym-pusht."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import mujoco.rollout
import numpy as np
from gymnasium import spaces

from benchmarks.table import Row, absent, compare
from reprise.envs import MujocoWorld, PushT
from reprise.envs.vector import Info

COUNT, STEPS = 64, 10  # environments, and steps in a call
PROCESSES = 32  # AsyncVectorEnv starts one for each environment
THREADS = 2


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
    """HalfCheetah without pictures on one and two threads; Push-T with states and with pictures."""
    actions = np.random.default_rng(0).uniform(-1, 1, (COUNT, 6)).astype(np.float32)
    for threads in (1, 2):
        ours = HalfCheetah(COUNT, threads)
        work = f"HalfCheetah, {COUNT} environments, {STEPS} steps, {threads} threads"
        yield from compare(
            work, _stepping(ours, actions), {"mujoco.rollout alone": _rollout(ours, actions)}, tolerance=None
        )
    work = f"HalfCheetah, {PROCESSES} environments, {STEPS} steps, {THREADS} threads"
    ours = HalfCheetah(PROCESSES, THREADS)
    try:
        makers = [lambda: gymnasium.make("HalfCheetah-v5")] * PROCESSES
        asynchronous = gymnasium.vector.AsyncVectorEnv(makers)
    except Exception as error:  # whatever Gymnasium says where a dependency of its own is missing
        yield from absent(work, "gymnasium's HalfCheetah-v5", str(error))
    else:
        peers = {
            "gymnasium SyncVectorEnv": _stepping(gymnasium.vector.SyncVectorEnv(makers), actions[:PROCESSES]),
            "gymnasium AsyncVectorEnv": _stepping(asynchronous, actions[:PROCESSES]),
        }
        yield from compare(work, _stepping(ours, actions[:PROCESSES]), peers, tolerance=None)
        asynchronous.close()
    yield from _push_t()


def _push_t() -> Iterator[Row]:
    count = 8
    aims = np.random.default_rng(0).uniform(100, 400, (count, 2)).astype(np.float32)
    for mode, theirs in (("state", "state"), ("image", "pixels")):
        work = f"Push-T, {mode} observations, {count} environments, {STEPS} steps"
        try:
            import gym_pusht  # noqa: F401
        except ModuleNotFoundError:
            yield from absent(work, "gym-pusht", "not installed")
            continue
        make = [lambda theirs=theirs: gymnasium.make("gym_pusht/PushT-v0", obs_type=theirs)] * count
        peer = _stepping(gymnasium.vector.SyncVectorEnv(make), aims)
        ours = _stepping(PushT(count, obs_mode=mode), aims)
        yield from compare(work, ours, {"gym-pusht in SyncVectorEnv": peer}, tolerance=None)


def _stepping(env: gymnasium.vector.VectorEnv, actions: np.ndarray) -> Callable[[], Any]:
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
