"""Does a residual that acts at every step repair what a cloned policy with chunks cannot, demonstrations or not?

A peg has to go into a slot that is hardly wider, with an actuation bias that nobody sees. A diffusion policy is cloned
from 50 demonstrations once per seed and frozen; residuals, ten times the demonstrations, and PPO on chunks compete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from matplotlib.figure import Figure

from reprise.envs import ChunkedEnv, PegInsert
from reprise.papers.resip.learners import LEARNERS, clone
from reprise.papers.resip.pictures import draw, record_paths
from reprise.policies import DiffusionPolicy
from reprise.training import Diverged


@dataclass(frozen=True)
class Settings:
    learner: str = "none"  # "none", "residual", "residual_per_chunk" or "chunk_ppo"
    more: int = 1  # times the demonstrations, for a policy of the arm's own
    inference_steps: int = 4  # of the sampler; the paper evaluates cloned policies with 16
    demonstrations: int = 50  # successes of the demonstrator
    base_steps: int = 4_000  # of the training of cloned policies
    width: int = 128  # of all networks
    num_envs: int = 256  # environments
    iterations: int = 80  # of PPO
    n_steps: int = 40  # steps in each environment between updates: an episode
    n_epochs: int = 10  # passes over these; 50 as published, over one batch of everything
    batch_size: int = 2048  # transitions per update
    actor_rate: float = 1e-3  # 3e-4 as published
    critic_rate: float = 5e-3  # as published
    chunk_rate: float = 1e-4  # of PPO on chunks, as published
    chunk_log_std: float = -3.0  # of its Gaussian; -5 as published
    episodes: int = 512  # that a policy is judged on


def prepare(trial: Any) -> DiffusionPolicy:
    """The frozen policy of this seed."""
    return clone(trial, trial.settings.demonstrations)


def measure(trial: Any) -> dict[str, float]:
    """Learn on top of the frozen policy, or not, and judge the result."""
    s = trial.settings
    base = trial.shared if s.more == 1 else clone(trial, s.more * s.demonstrations)
    base = base.sampled(inference_steps=s.inference_steps)
    try:
        policy, execute = LEARNERS[s.learner](base, trial)
    except Diverged:
        return {"success": 0.0}
    if execute == 1:
        np.save(trial.folder / "paths.npy", record_paths(policy))
    world = PegInsert(s.episodes)
    return {"success": success(policy, world if execute == 1 else ChunkedEnv(world, execute), trial.seed)}


def success(policy: Any, env: VectorEnv, seed: int) -> float:
    """Share of episodes that end well, from starts that all arms of a seed have in common."""
    observation, _ = env.reset(seed=10_000_000 + 1_000 * seed)
    won, over = np.zeros((2, env.num_envs), bool)
    policy.reset()
    while not over.all():
        actions = np.clip(policy.act(observation), -1, 1).reshape(-1, *(env.single_action_space.shape or ()))
        observation, _, terminated, truncated, _ = env.step(actions)
        won |= terminated & ~over
        over |= terminated | truncated
        policy.reset(terminated | truncated)
    return float(won.mean())


def figure(results: Any) -> Figure:
    """Success by arm, learning curves, and the last of the way into the slot."""
    return draw(results)
