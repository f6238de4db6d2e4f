"""Returns and lengths of the episodes that end while an algorithm learns."""

from __future__ import annotations

from collections import deque

import numpy as np

__all__ = ["EpisodeLog"]


class EpisodeLog:
    """Sums rewards until episodes end, and remembers the last ones.

    Args:
        num_envs: side by side.
        window: episodes that are remembered.

    Example:
        >>> log = EpisodeLog(2)
        >>> for done in ([False, True], [True, False]):
        ...     log.add(np.ones(2), np.array(done))
        >>> log.summary()
        {'episode_return': 1.5, 'episode_length': 1.5}
    """

    def __init__(self, num_envs: int, window: int = 100) -> None:
        self.running = np.zeros((2, num_envs))
        self.returns: deque[float] = deque(maxlen=window)
        self.lengths: deque[float] = deque(maxlen=window)

    def add(self, reward: np.ndarray, done: np.ndarray) -> None:
        """One step: (N,) rewards, and which episodes ended with it."""
        self.running[0] += reward
        self.running[1] += 1
        if done.any():
            self.returns.extend(self.running[0, done])
            self.lengths.extend(self.running[1, done])
            self.running[:, done] = 0

    def summary(self) -> dict[str, float]:
        """The means; empty before the first end."""
        if not self.returns:
            return {}
        return {"episode_return": float(np.mean(self.returns)), "episode_length": float(np.mean(self.lengths))}
