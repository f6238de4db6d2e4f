"""From noise level, goal, observations and noisy actions to tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from reprise.diffusion.guidance import drop_condition

__all__ = ["TokenEmbedding", "Tokens"]


class Tokens(NamedTuple):
    """Tokens of width D: ``noise`` (B, 1, D), ``goal`` (B, 1, D) or None, ``observations``, ``actions`` (B, H, D)."""

    noise: Tensor
    goal: Tensor | None
    observations: Tensor
    actions: Tensor


class TokenEmbedding(nn.Module):
    """Linear layers without biases into one width, and learned positions.

    Slot 0 is the goal's; the observation at time t of the history has slot 1 + t, whatever its camera; action j has
    slot 1 + (history - 1) + j, so that the first one shares that of the latest observation. The noise level becomes
    phi = W2 (w1 log(sigma) / 4 + b1) and has no position.

    Args:
        obs_dim: of an observation token.
        goal_dim: of the goal; None for a policy without one.
        action_dim: of an action.
        embed_dim: D.
        horizon: H, actions in a chunk.
        history: times in an observation.
        goal_dropout: probability with which an element of the goal is zeroed in training.

    Raises:
        ValueError: a size below 1; at the call: shapes that do not fit, a goal that is missing or not expected.

    Source: section 3 and appendix of the paper; slots as in the published code.

    Example:
        >>> embedding = TokenEmbedding(5, 7, 2, 16, horizon=4)
        >>> tokens = embedding(torch.zeros(3, 4, 2), torch.zeros(3), torch.zeros(3, 2, 5), torch.zeros(3, 7))
        >>> [tuple(part.shape) for part in tokens]
        [(3, 1, 16), (3, 1, 16), (3, 2, 16), (3, 4, 16)]
    """

    def __init__(
        self,
        obs_dim: int,
        goal_dim: int | None,
        action_dim: int,
        embed_dim: int,
        *,
        horizon: int,
        history: int = 1,
        goal_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"obs_dim": obs_dim, "action_dim": action_dim, "embed_dim": embed_dim}
        sizes |= {"horizon": horizon, "history": history, "goal_dim": 1 if goal_dim is None else goal_dim}
        if wrong := [f"{name} {size}" for name, size in sizes.items() if size < 1]:
            raise ValueError(f"sizes are at least 1, not {', '.join(wrong)}")
        self.obs_dim, self.goal_dim, self.action_dim = obs_dim, goal_dim, action_dim
        self.horizon, self.history, self.goal_dropout = horizon, history, goal_dropout
        self.noise = nn.Sequential(nn.Linear(1, embed_dim), nn.Linear(embed_dim, embed_dim, bias=False))
        self.goal = None if goal_dim is None else nn.Linear(goal_dim, embed_dim, bias=False)
        self.observation = nn.Linear(obs_dim, embed_dim, bias=False)
        self.action = nn.Linear(action_dim, embed_dim, bias=False)
        self.position = nn.Parameter(torch.zeros(1, history + horizon, embed_dim))

    def forward(self, actions: Tensor, c_noise: Tensor, observations: Tensor, goal: Tensor | None = None) -> Tokens:
        """Embed a batch.

        Args:
            actions: (B, H, action_dim).
            c_noise: (B,) or, one for all, (1,): log(sigma) / 4.
            observations: (B, C, obs_dim), C tokens of one time; with a history (B, history, C, obs_dim).
            goal: (B, goal_dim) or (B, 1, goal_dim).
        """
        self._check(actions, c_noise, observations, goal)
        goal_token = None
        if self.goal is not None and goal is not None:
            goal = goal.reshape(len(goal), 1, -1)
            if self.training and self.goal_dropout:
                goal = drop_condition(goal, self.goal_dropout, mode="element")
            goal_token = self.goal(goal) + self.position[:, :1]
        if observations.ndim == 3:
            observations = observations[:, None]
        seen = self.observation(observations) + self.position[:, 1 : 1 + self.history, None]
        planned = self.action(actions) + self.position[:, self.history :]
        return Tokens(self.noise(c_noise[:, None])[:, None], goal_token, seen.flatten(1, 2), planned)

    def _check(self, actions: Tensor, c_noise: Tensor, observations: Tensor, goal: Tensor | None) -> None:
        batch = len(actions)
        if actions.shape != (batch, self.horizon, self.action_dim):
            raise ValueError(f"actions are (B, {self.horizon}, {self.action_dim}), not {tuple(actions.shape)}")
        if c_noise.shape not in ((batch,), (1,)):
            raise ValueError(f"c_noise is ({batch},), one for each example, not {tuple(c_noise.shape)}")
        times = observations.shape[1] if observations.ndim == 4 else 1
        fits = observations.ndim in (3, 4) and len(observations) == batch and observations.shape[-1] == self.obs_dim
        if not fits or times != self.history:
            wanted = f"({batch}, {self.history}, C, {self.obs_dim})"
            wanted += f" or ({batch}, C, {self.obs_dim})" if self.history == 1 else ""
            raise ValueError(f"observations are {wanted}, not {tuple(observations.shape)}")
        if (goal is None) != (self.goal_dim is None):
            raise ValueError(
                "this network was built without a goal and takes none; give goal_dim"
                if self.goal_dim is None
                else f"a goal ({batch}, {self.goal_dim}) is missing"
            )
        if goal is not None and goal.shape not in ((batch, self.goal_dim), (batch, 1, self.goal_dim)):
            raise ValueError(f"the goal is ({batch}, {self.goal_dim}), not {tuple(goal.shape)}")
