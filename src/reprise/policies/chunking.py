"""Execute chunks of actions: plan, act out a part of the plan, plan again, each environment in its own time."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprise.policies.observations import checked_mask, count_of, take

__all__ = ["ChunkedPolicy"]


class ChunkedPolicy:
    """A policy that plans, as one that acts: the first ``execute`` actions of a chunk are played before the next.

    Every environment has a queue of its own, so that one whose episode ends does not disturb the others.

    Args:
        policy: has ``plan(observation) -> (B, H, A)``. If it also has ``observe`` (a policy that remembers), it is
            shown every observation, and ``plan(observation, environments=mask)`` returns the chunks that are needed;
            otherwise it is asked about the rows of those environments alone. ``first_action`` (0 if there is none)
            says which step, relative to now, its chunks begin at; what lies in the past is skipped.
        execute: actions that are played of a chunk.

    Attributes:
        left: (B,) actions that each environment still has in its queue; None before the first call.

    Raises:
        ValueError: nothing to execute, or at the call a chunk that is too short; another number of environments.

    Source: Chi et al., Diffusion Policy, RSS 2023 (receding horizon); Zhao et al., ACT, RSS 2023 (chunks).

    Example:
        >>> class Count:
        ...     def plan(self, observation):
        ...         return np.tile(np.arange(4.0)[None, :, None], (len(observation), 1, 1))
        >>> policy = ChunkedPolicy(Count(), execute=3)
        >>> [policy.act(np.zeros((2, 1)))[:, 0].tolist() for _ in range(4)]
        [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
        >>> policy.reset(np.array([True, False]))
        >>> policy.act(np.zeros((2, 1)))[:, 0].tolist()
        [0.0, 1.0]
    """

    def __init__(self, policy: Any, execute: int = 8) -> None:
        if execute < 1:
            raise ValueError(f"at least one action of a chunk must be executed, not {execute}")
        self.policy, self.execute = policy, execute
        self.left: np.ndarray | None = None
        self._queue: np.ndarray | None = None  # (B, execute, A)

    def act(self, observation: Any) -> np.ndarray:
        """(B, A) actions for now."""
        B = count_of(observation)
        if self.left is None:
            self.left = np.zeros(B, np.int64)
        elif len(self.left) != B:
            raise ValueError(f"{len(self.left)} environments have plans and {B} came: call reset() between them")
        empty = self.left == 0
        if empty.any():
            self._refill(observation, empty)
        elif hasattr(self.policy, "observe"):
            self.policy.observe(observation)
        assert self._queue is not None
        actions = self._queue[np.arange(B), self.execute - self.left]
        self.left = self.left - 1
        return actions

    def reset(self, mask: Any = None) -> None:
        """Drop the plans of all environments, or of those of a mask (B,); the policy forgets them, too."""
        if mask is None:
            self.left = self._queue = None
        elif self.left is not None:
            self.left = np.where(checked_mask(mask, len(self.left)), 0, self.left)
        if hasattr(self.policy, "reset"):
            self.policy.reset(mask)

    def _refill(self, observation: Any, empty: np.ndarray) -> None:
        if hasattr(self.policy, "observe"):
            chunks = np.asarray(self.policy.plan(observation, environments=empty))
        else:
            chunks = np.asarray(self.policy.plan(observation if empty.all() else take(observation, empty)))
        start = -getattr(self.policy, "first_action", 0)
        if chunks.ndim != 3 or len(chunks) != empty.sum() or chunks.shape[1] < start + self.execute:
            raise ValueError(
                f"a plan for {int(empty.sum())} environments of which {self.execute} actions are executed from place "
                f"{start} on is ({int(empty.sum())}, at least {start + self.execute}, A), not {chunks.shape}"
            )
        if self._queue is None:
            self._queue = np.empty((len(empty), self.execute, chunks.shape[2]), chunks.dtype)
        self._queue[empty] = chunks[:, start : start + self.execute]
        assert self.left is not None
        self.left = np.where(empty, self.execute, self.left)
