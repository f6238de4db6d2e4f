"""Generalised advantage estimation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["gae"]

Floats = NDArray[np.floating]


def gae(
    rewards: Floats,
    values: Floats,
    next_values: Floats,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    *,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
) -> Floats:
    """Exponentially weighted sums of temporal differences, cut where episodes end.

    A terminated episode is worth nothing afterwards; a truncated one is worth the value of the state it was cut at.

    Args:
        rewards: (T, N) of T steps in N environments.
        values: (T, N) values of the observations before each step.
        next_values: (T, N) values of the observations that each step led to; at the end of an episode those of its
            last observation, not of the next episode's first.
        terminated, truncated: (T, N) whether the episode ended with the step, and how.
        gamma: discount.
        gae_lambda: 0 takes one-step differences, 1 whole returns.

    Returns:
        (T, N) advantages; adding the values gives the returns to learn.

    Raises:
        ValueError: shapes differ.

    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, ICLR 2016,
    equation 16.

    Example:
        >>> one, no = np.ones((3, 1)), np.zeros((3, 1), bool)
        >>> gae(one, 0 * one, 0 * one, no, no, gamma=0.5, gae_lambda=1.0)[:, 0]
        array([1.75, 1.5 , 1.  ])
    """
    shapes = {np.shape(array) for array in (rewards, values, next_values, terminated, truncated)}
    if len(shapes) != 1:
        raise ValueError(f"rewards, values and ends are (T, N) alike, not {sorted(shapes)}")
    advantages = rewards + gamma * next_values * ~terminated - values
    carried = gamma * gae_lambda * ~(terminated | truncated)
    for t in range(len(rewards) - 2, -1, -1):
        advantages[t] += carried[t] * advantages[t + 1]
    return advantages
