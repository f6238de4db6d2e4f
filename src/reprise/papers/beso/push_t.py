"""The same comparison on what people did: Push-T from 206 human demonstrations, with hindsight goals.

The goal is where the block lies at the end of a demonstration that was held out; what counts is how much of that place
the block covers when time is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reprise.data import Episodes, episodes
from reprise.envs import PushT, coverage, keypoints
from reprise.papers.beso.learning import learn, sampled
from reprise.policies.beso.history import HistoryPolicy

CORNERS = tuple(range(16))  # where the block's corners are in the state; the finger follows


@dataclass(frozen=True)
class Settings:
    method: str = "beso"  # "beso", "gcbc" or "cbet"
    goal_drop: float = 0.0  # of BESO: each number of a goal is left out with this probability in training
    window: int = 2  # observations that are seen
    embed_dim: int = 64  # width of the transformer
    n_layers: int = 2  # its blocks
    n_heads: int = 4  # its heads
    updates: int = 4_000  # optimiser steps
    batch_size: int = 128  # windows per step
    learning_rate: float = 2e-3  # of Adam at the start; a cosine takes it to zero
    held_out: int = 30  # episodes whose last states are goals
    rollouts: int = 50  # boards with random starts, each with one goal
    limit: int = 250  # steps of a rollout


def prepare(trial: Any) -> dict[str, Any]:
    """This seed's demonstrations, and where the block ended in others."""
    s = trial.settings
    train, test = episodes.load("pusht", cameras=()).split(s.held_out, trial.seed)
    state = train.observations["state"]
    corners = keypoints(state[:, 2:]).reshape(len(state), 16)
    seen = {"state": np.concatenate([corners, state[:, :2]], 1).astype(np.float32)}
    return {"train": Episodes(seen, train.actions, train.ends), "poses": test.observations["state"][test.ends - 1, 2:]}


def measure(trial: Any) -> dict[str, float]:
    """Train one policy and ask it for the goals."""
    policy = learn(trial, trial.shared["train"], CORNERS)
    covered = rollouts(trial, sampled(policy), trial.shared["poses"])
    return {"coverage": float(covered[:, -1].mean()), "best_coverage": float(covered.max(1).mean())}


def rollouts(trial: Any, policy: HistoryPolicy | None, poses: np.ndarray) -> np.ndarray:
    """(boards, steps) how much of its goal each block covers, held from the end of an episode on."""
    s = trial.settings
    env = PushT(s.rollouts, obs_mode="keypoints", max_episode_steps=None)
    state, _ = env.reset(seed=1_000_000_007 + 100_003 * trial.seed)
    poses = poses[np.arange(s.rollouts) % len(poses)]
    goals = np.concatenate([keypoints(poses).reshape(-1, 16), np.zeros((s.rollouts, 2))], 1)
    covered, running = np.zeros((s.rollouts, s.limit)), np.ones(s.rollouts, bool)
    if policy is None:  # it diverged
        return covered
    policy.reset()
    for step in range(s.limit):
        state, _, terminated, _, infos = env.step(policy.act(state, goal=goals))
        now = [coverage(env.poses[i : i + 1, 2:], poses[i])[0] for i in range(s.rollouts)]
        covered[:, step] = np.where(running, now, covered[:, step - 1])
        for i in np.flatnonzero(running & terminated):  # the board has been reset: look at its last observation
            covered[i, step] = infos["final_info"]["coverage"][i]
        running &= ~terminated
    return covered
