"""The policy and the value function of PPO: two perceptrons of one shape, computed in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reprise.nn.stacked import StackedLinear, StackedMLP
from reprise.rl.distributions import Categorical, Distribution, Gaussian
from reprise.rl.vector import flatten

__all__ = ["ActorCritic"]


class ActorCritic(nn.Module):
    """Two perceptrons, policy and value, with nothing in common but the input.

    Args:
        observation_size: numbers in an observation.
        action_size: numbers in an action, or actions to choose from.
        discrete: a choice among ``action_size`` actions instead of a Gaussian with one standard deviation per number,
            the same everywhere.
        hidden: widths of the hidden layers of either.
        activation: "tanh", "relu", "silu" or "gelu".
        log_std_init: initial logarithm of the standard deviations.
        generator: of the initial weights: orthogonal, scaled by sqrt(2), those of the last layers by 0.01 (policy)
            and 1 (value), as in Stable-Baselines3 and CleanRL.

    Raises:
        ValueError: unknown activation, or no hidden layer.

    Example:
        >>> policy = ActorCritic(4, 2, discrete=True)
        >>> distribution, value = policy(torch.zeros(3, 4))
        >>> distribution.logits.shape, value.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        discrete: bool,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std_init: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.discrete = discrete
        self.bodies = StackedMLP(2, observation_size, hidden, activation=activation)
        self.action_head = nn.Linear(hidden[-1], action_size)
        self.value_head = nn.Linear(hidden[-1], 1)
        if not discrete:
            self.log_std = nn.Parameter(torch.full((action_size,), float(log_std_init)))
        for layer in self.bodies.layers:
            if isinstance(layer, StackedLinear):
                for weight in layer.weight.data:
                    nn.init.orthogonal_(weight.T, math.sqrt(2), generator=generator)
                nn.init.zeros_(layer.bias)
        for head, gain in ((self.action_head, 0.01), (self.value_head, 1.0)):
            nn.init.orthogonal_(head.weight, gain, generator=generator)
            nn.init.zeros_(head.bias)

    def forward(self, observation: Tensor | dict[str, Tensor]) -> tuple[Distribution, Tensor]:
        """Observations (B, ...), or a dictionary of such, to the distribution over actions and values (B,)."""
        actor, critic = self.bodies(flatten(observation))
        return self.distribution(self.action_head(actor)), self.value_head(critic)[:, 0]

    def distribution(self, output: Tensor) -> Categorical | Gaussian:
        """The distribution that the actor's output (B, action_size) stands for."""
        return Categorical(output) if self.discrete else Gaussian(output, self.log_std)
