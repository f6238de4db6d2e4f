"""Do PPO and SAC learn as well as Stable-Baselines3's at equal settings? Returns over seeds, not speed.

A row says the mean and the standard deviation over seeds of the return of twenty episodes after learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from benchmarks.table import Row, absent
from reprise.rl import PPO, SAC

SEEDS = range(3)
WORK: tuple[tuple[str, str, int, int, dict[str, Any]], ...] = (  # algorithm, task, environments, steps, settings
    (
        "PPO",
        "CartPole-v1",
        8,
        50_000,
        {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gae_lambda": 0.8, "gamma": 0.98, "learning_rate": 1e-3},
    ),
    ("PPO", "Pendulum-v1", 4, 100_000, {"n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "learning_rate": 1e-3}),
    ("PPO", "InvertedPendulum-v5", 4, 100_000, {"n_steps": 512, "learning_rate": 3e-4}),
    ("SAC", "Pendulum-v1", 1, 5_000, {"learning_rate": 1e-3}),
)


def rows() -> Iterator[Row]:
    """Three classical tasks, one of them in MuJoCo."""
    try:
        import stable_baselines3 as sb3
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError:
        yield from absent("returns", "stable-baselines3", "not installed")
        return
    for name, task, num_envs, steps, settings in WORK:
        ours, theirs = [], []
        for seed in SEEDS:
            env = gymnasium.make_vec(task, num_envs, "sync", {"autoreset_mode": "SameStep"})
            algorithm = {"PPO": PPO, "SAC": SAC}[name](env, **settings, seed=seed)  # type: ignore[operator]
            algorithm.learn(steps)
            ours.append(_returns(task, lambda x, a=algorithm: a.act(x[None])[0]))
            peer_env = DummyVecEnv([lambda task=task: gymnasium.make(task)] * num_envs)
            peer = getattr(sb3, name)("MlpPolicy", peer_env, **settings, seed=seed, device="cpu").learn(steps)
            theirs.append(_returns(task, lambda x, p=peer: p.predict(x, deterministic=True)[0]))
        note = " against ".join(f"{np.mean(values):.1f} ± {np.std(values):.1f}" for values in (ours, theirs))
        yield Row(f"return of {name} on {task}, {len(SEEDS)} seeds", "stable-baselines3", f"{steps:,} steps", note=note)


def _returns(task: str, act: Any, episodes: int = 20) -> float:
    env, total = gymnasium.make(task), 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=10_000 + episode)
        done = False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total += float(reward)
            done = terminated or truncated
    return total / episodes
