"""PPO against Stable-Baselines3 at equal settings: on CartPole, and on a world that is vectorised in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from benchmarks.table import Row, absent, compare
from reprise.envs import FisheryEnv, FisheryVectorEnv
from reprise.rl import PPO

CARTPOLE: dict[str, Any] = {"batch_size": 64, "n_epochs": 10, "seed": 0}
FISHERY: dict[str, Any] = {"batch_size": 256, "n_epochs": 6, "learning_rate": 1e-3, "seed": 0}
CARTPOLE_STEPS, FISHERY_STEPS = 1024, 4096  # of an iteration, in all environments together
FUSED: dict[str, Any] = {"optimizer_kwargs": {"eps": 1e-5, "fused": True}}  # Adam as PPO has it, in one kernel


def rows() -> Iterator[Row]:
    """Whole iterations: acting, advantages, updates."""
    try:
        import stable_baselines3 as sb3
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError:
        yield from absent("PPO", "stable-baselines3", "not installed")
        return
    work = f"PPO, CartPole-v1, {CARTPOLE_STEPS:,} steps, batches of 64, 10 epochs"
    for count in (2, 8, 32):
        settings = CARTPOLE | {"n_steps": CARTPOLE_STEPS // count}
        ours = PPO(gymnasium.make_vec("CartPole-v1", count, "sync", {"autoreset_mode": "SameStep"}), **settings)
        functions = []
        for kwargs, checked in ((FUSED, False), ({}, True)):
            make = partial(gymnasium.make, "CartPole-v1", disable_env_checker=not checked)
            peer = sb3.PPO("MlpPolicy", DummyVecEnv([make] * count), policy_kwargs=kwargs, device="cpu", **settings)
            functions.append(_learn(peer, CARTPOLE_STEPS))
        yield from compare(
            work,
            _learn(ours, CARTPOLE_STEPS),
            {"stable-baselines3, fused Adam": functions[0]},
            defaults={"stable-baselines3": functions[1]},
            size=f"{count} environments",
            tolerance=None,
        )
    work = f"PPO, fishery of 3 species, {FISHERY_STEPS:,} steps, batches of 256, 6 epochs"
    for count in (16, 64, 256):
        settings = FISHERY | {"n_steps": FISHERY_STEPS // count, "device": "cpu"}
        best = sb3.PPO("MlpPolicy", as_sb3(FisheryVectorEnv(count)), policy_kwargs=FUSED, **settings)
        defaults = sb3.PPO("MlpPolicy", DummyVecEnv([FisheryEnv] * count), **settings)
        yield from compare(
            work,
            _learn(PPO(FisheryVectorEnv(count), **settings), FISHERY_STEPS),
            {"stable-baselines3, our vector world, fused Adam": _learn(best, FISHERY_STEPS)},
            defaults={"stable-baselines3, DummyVecEnv": _learn(defaults, FISHERY_STEPS)},
            size=f"{count} environments",
            tolerance=None,
        )


def as_sb3(world: VectorEnv) -> Any:
    """A vector world as Stable-Baselines3 takes one: what a user who knows both would write."""
    from stable_baselines3.common.vec_env import VecEnv

    class Vectorised(VecEnv):
        def __init__(self) -> None:
            super().__init__(world.num_envs, world.single_observation_space, world.single_action_space)

        def reset(self) -> np.ndarray:
            return world.reset(seed=0)[0]

        def step_async(self, actions: np.ndarray) -> None:
            self.pending = actions

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            observation, reward, terminated, truncated, infos = world.step(self.pending)
            told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            for i in np.flatnonzero(terminated | truncated):
                told[i] = {"terminal_observation": infos["final_obs"][i], "TimeLimit.truncated": bool(truncated[i])}
            return observation, reward.astype(np.float32), terminated | truncated, told

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            raise NotImplementedError

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

    return Vectorised()


def _learn(algorithm: Any, steps: int) -> Callable[[], Any]:
    options = {} if isinstance(algorithm, PPO) else {"reset_num_timesteps": False}
    return lambda: algorithm.learn(steps, **options)
