"""Demonstrations of PickCube by a hand that aims badly: for policies that leave something to be improved.

The demonstrator moves the hand without turning it, and does not always grasp the cube where it should. Many
demonstrators of the same skill are cheap this way: no motion is planned, and all of them act side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector.utils import batch_space

from reprise.data.episodes import Episodes
from reprise.envs.maniskill.env import ManiSkillWorld

__all__ = ["CubeInHand", "sloppy_demonstrations"]

Array = np.ndarray

FINE = 0.03  # metres beyond which near distances are cut off


class CubeInHand(ManiSkillWorld):
    """PickCube in ``pd_ee_delta_pos`` for small networks: few observations, sparse reward.

    Observation (16,): opening of the fingers, height of the hand, way from hand to cube (3) and from cube to goal (3),
    both once more within 3 cm alone, in units of 3 cm, and cosine and sine of four times the cube's yaw. Actions are
    along the axes of the hand, which points down.

    Args:
        num_envs, **options: of :class:`~reprise.envs.maniskill.ManiSkillWorld`.

    Example:
        >>> env = CubeInHand(2, max_episode_steps=60)
        >>> env.reset(seed=0)[0].shape, env.single_action_space.shape
        ((2, 16), (4,))
    """

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        super().__init__(num_envs, "PickCube", control_mode="pd_ee_delta_pos", reward_mode="sparse", **options)
        self.single_observation_space = Box(-np.inf, np.inf, (16,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def observe(self, indices: np.ndarray) -> Array:
        state = super().observe(indices)
        opening, height = state[:, 7:9].sum(1), state[:, 27]
        ways = state[:, 42:48]
        yaw = 2 * np.arctan2(state[:, 41], state[:, 38])
        near = np.clip(ways / FINE, -1, 1)
        return np.column_stack([opening, height, ways, near, np.cos(4 * yaw), np.sin(4 * yaw)]).astype(np.float32)


HOVER = 0.08  # metres above the cube, until the hand is over it
REACH = 0.1  # metres that an action of 1 asks for
DOWN = np.array([1.0, -1.0, -1.0])  # the axes of a hand that points down, along which actions are
FIRM = 3  # steps for which the fingers close before they lift


def sloppy_demonstrations(
    count: int, seed: int, *, sloppiness: float = 0.0, failures: bool = False, max_steps: int = 60, num_envs: int = 50
) -> Episodes:
    """Episodes in :class:`CubeInHand`.

    Args:
        count: episodes.
        seed: of the starts and of the demonstrators.
        sloppiness: standard deviation, in metres, by which a demonstrator misses the middle of the cube in both
            horizontal directions; drawn for each episode.
        failures: keep the episodes that do not end in success, too.
        max_steps: of an episode.
        num_envs: side by side.

    Example:
        >>> episodes = sloppy_demonstrations(4, seed=0, num_envs=4)
        >>> len(episodes), episodes.observations["state"].shape[1], episodes.actions.shape[1]
        (4, 16, 4)
    """
    env = CubeInHand(num_envs, max_episode_steps=max_steps)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    miss, closed = sloppiness * rng.normal(size=(num_envs, 2)), np.zeros(num_envs, int)
    running: list[list[tuple[Array, Array]]] = [[] for _ in range(num_envs)]
    kept: list[dict[str, Any]] = []
    while len(kept) < count:
        actions, there = _demonstrate(observation, miss, closed)
        for i in range(num_envs):
            running[i].append((observation[i], actions[i]))
        closed = np.where(there | (closed > 0), closed + 1, 0)
        observation, _, terminated, truncated, _ = env.step(actions)
        for i in np.flatnonzero(terminated | truncated).tolist():
            if terminated[i] or failures:
                states, done = (np.stack(part) for part in zip(*running[i], strict=True))
                kept.append({"observations": {"state": states}, "actions": done})
            running[i], closed[i], miss[i] = [], 0, sloppiness * rng.normal(size=2)
    env.close()
    return Episodes.of(kept[:count])


def _demonstrate(observation: Array, miss: Array, closed: Array) -> tuple[Array, Array]:
    """Actions (N, 4), and whether the hand is where it closes (N,)."""
    to_cube, to_goal = observation[:, 2:5].copy(), observation[:, 5:8]
    to_cube[:, :2] += miss
    aside = np.linalg.norm(to_cube[:, :2], axis=1) > 0.015
    there = np.linalg.norm(to_cube, axis=1) < 0.01
    to_cube[:, 2] += HOVER * aside
    way = np.where((closed > FIRM)[:, None], to_goal, np.where((closed > 0)[:, None], 0, to_cube))
    length = np.linalg.norm(way, axis=1, keepdims=True)
    move = DOWN * way / REACH * np.minimum(1, 0.8 * REACH / np.maximum(length, 1e-9))
    gripper = np.where(there | (closed > 0), -1.0, 1.0)
    return np.column_stack([move, gripper]).astype(np.float32), there
