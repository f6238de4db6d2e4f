"""Chunks of actions as the actions of an environment: one decision, several steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

__all__ = ["ChunkedEnv"]


class ChunkedEnv(VectorEnv):
    """A vector environment whose actions are chunks (execute, A); the reward of a chunk is the sum of its steps'.

    Where an episode ends inside a chunk, the rest of it is not played: that environment stands still until the others
    have finished theirs, and begins its next episode with the next chunk. (Below, it goes on, since vector environments
    step together; what it does there is thrown away and its episode begun again.)

    Args:
        env: starts finished episodes again in the same step, and at ``reset(options={"reset_mask": ...})`` only those
            of the mask, as Gymnasium's own and reprise's worlds do.
        execute: actions in a chunk.
        time_limit_ends: truncation is told as termination, so that nobody bootstraps there, as Wagenmaker et al. (DSRL)
            and Ankile et al. (ResiP) do.

    Attributes:
        played: environment steps so far that belong to an episode.

    Raises:
        TypeError, ValueError: an environment without vector semantics, discrete actions, no action in a chunk.

    Example:
        >>> from reprise.envs import PegInsert
        >>> env = ChunkedEnv(PegInsert(2, task="two_slots"), execute=4)
        >>> observation, _ = env.reset(seed=0)
        >>> env.step(np.zeros((2, 4, 2)))[1].tolist(), env.played
        ([-4.0, -4.0], 8)
    """

    def __init__(self, env: VectorEnv, execute: int, *, time_limit_ends: bool = False) -> None:
        if not isinstance(env, VectorEnv):
            raise TypeError(f"a gymnasium.vector.VectorEnv is needed, not {type(env).__name__}")
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError(
                "finished environments must start again in the same step; make the environment with "
                "autoreset_mode=AutoresetMode.SAME_STEP"
            )
        space = env.single_action_space
        if not isinstance(space, Box):
            raise ValueError(f"chunks are made of continuous actions, not of {space}")
        if execute < 1:
            raise ValueError(f"a chunk has at least one action, not {execute}")
        self.env, self.execute, self.time_limit_ends = env, execute, time_limit_ends
        self.num_envs, self.metadata, self.render_mode = env.num_envs, env.metadata, env.render_mode
        self.single_observation_space = env.single_observation_space
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        low, high = (np.broadcast_to(bound, (execute, *space.shape)) for bound in (space.low, space.high))
        self.single_action_space = Box(low, high, dtype=space.dtype)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self.played = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment below."""
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play a chunk in every environment.

        Args:
            actions: (N, execute, A).

        Returns:
            As any vector environment; ``infos`` are those of the last step, and ``final_obs`` and ``steps`` (N,), how
            many steps of the chunk were played.

        Raises:
            ValueError: chunks of another shape; an environment that does not understand ``reset_mask``.
        """
        chunks = np.asarray(actions)
        if chunks.shape != self.action_space.shape:
            raise ValueError(f"chunks of these environments are {self.action_space.shape}, not {chunks.shape}")
        N = self.num_envs
        rewards, steps = np.zeros(N), np.zeros(N, np.int64)
        terminated, truncated = np.zeros(N, bool), np.zeros(N, bool)
        final = np.full(N, None, dtype=object)
        over = terminated
        for k in range(self.execute):
            late = over  # ended before this step
            observation, reward, ends, cuts, infos = self.env.step(chunks[:, k])
            rewards += np.where(late, 0.0, reward)
            steps += ~late
            terminated, truncated = terminated | (ends & ~late), truncated | (cuts & ~late)
            over = terminated | truncated
            for i in np.flatnonzero(over & ~late).tolist():
                final[i] = _row(infos["final_obs"], i)
        if late.any():
            observation = self._begin_again(observation, late)
        self.played += int(steps.sum())
        infos = {key: value for key, value in infos.items() if not key.startswith(("final_", "_final_"))}
        infos |= {"steps": steps}
        if over.any():
            infos |= {"final_obs": final, "_final_obs": over}
        if self.time_limit_ends:
            terminated, truncated = over, np.zeros(N, bool)
        return observation, rewards, terminated, truncated, infos

    def render(self) -> Any:
        """As the environment below."""
        return self.env.render()

    def close(self, **options: Any) -> None:
        """Close the environment below."""
        self.env.close(**options)

    def _begin_again(self, observation: Any, late: np.ndarray) -> Any:
        fresh, _ = self.env.reset(options={"reset_mask": late})
        if not _same(observation, fresh, ~late):
            raise ValueError(f'{type(self.env).__name__}.reset resets all environments, whatever the "reset_mask"')
        return fresh


def _row(tree: Any, index: int) -> Any:
    return {key: _row(part, index) for key, part in tree.items()} if isinstance(tree, dict) else tree[index]


def _same(a: Any, b: Any, rows: np.ndarray) -> bool:
    if isinstance(a, dict):
        return all(_same(a[key], b[key], rows) for key in a)
    return np.array_equal(np.asarray(a)[rows], np.asarray(b)[rows])
