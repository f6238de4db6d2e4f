"""PPO against Stable-Baselines3 at equal settings: on CartPole, and on a world that is vectorised in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from benchmarks.table import Row, absent, compare
from reprise.envs import FisheryEnv, FisheryVectorEnv
from reprise.rl import PPO

CARTPOLE: dict[str, Any] = {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "seed": 0}
FISHERY: dict[str, Any] = {"n_steps": 64, "batch_size": 256, "n_epochs": 6, "learning_rate": 1e-3, "seed": 0}


def rows() -> Iterator[Row]:
    """Whole iterations: acting, advantages, updates."""
    try:
        import stable_baselines3 as sb3
        from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
    except ImportError:
        yield from absent("PPO", "stable-baselines3", "not installed")
        return

    class Vectorised(VecEnv):
        """Our vector world as Stable-Baselines3 takes one: what a user who knows both would write."""

        def __init__(self, env: FisheryVectorEnv) -> None:
            super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
            self.env = env

        def reset(self) -> np.ndarray:
            return self.env.reset(seed=0)[0]

        def step_async(self, actions: np.ndarray) -> None:
            self.pending = actions

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            observation, reward, terminated, truncated, infos = self.env.step(self.pending)
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

    ours = PPO(gymnasium.make_vec("CartPole-v1", 8, "sync", {"autoreset_mode": "SameStep"}), **CARTPOLE)
    peer_env = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * 8)
    peer = sb3.PPO("MlpPolicy", peer_env, device="cpu", **CARTPOLE)
    work = "PPO, CartPole-v1, 8 environments, 2,048 steps (256 a batch of 64, 10 epochs)"
    yield from compare(work, _learn(ours, 2048), {"stable-baselines3": _learn(peer, 2048)}, tolerance=None)

    ours = PPO(FisheryVectorEnv(64), **FISHERY)
    peers = {
        "stable-baselines3, DummyVecEnv": sb3.PPO("MlpPolicy", DummyVecEnv([FisheryEnv] * 64), device="cpu", **FISHERY),
        "stable-baselines3, our vector world": sb3.PPO("MlpPolicy", Vectorised(FisheryVectorEnv(64)), **FISHERY),
    }
    work = "PPO, fishery of 3 species, 64 environments, 4,096 steps (64 a batch of 256, 6 epochs)"
    functions = {name: _learn(peer, 4096) for name, peer in peers.items()}
    yield from compare(work, _learn(ours, 4096), functions, tolerance=None)


def _learn(algorithm: Any, steps: int) -> Callable[[], Any]:
    options = {} if isinstance(algorithm, PPO) else {"reset_num_timesteps": False}
    return lambda: algorithm.learn(steps, **options)
