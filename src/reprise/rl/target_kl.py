"""PPO in a few large batches: rates of their own for actor and critic, and passes until the policy has moved enough.

The settings of fine-tuning by PPO, as in Ankile et al., From Imitation to Refinement (ResiP), arXiv 2407.16677.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from gymnasium.vector import VectorEnv
from torch import nn

from reprise.rl.ppo import NEEDED, PPO, OnStep
from reprise.rl.vector import take
from reprise.training.grouped_adam import GroupedAdam

__all__ = ["TargetKLPPO"]


class ActorAndCritic(Protocol):
    """A policy for PPO that says which of its parameters are whose."""

    def groups(self) -> list[list[nn.Parameter]]:
        """The actor's and the critic's."""


class TargetKLPPO(PPO):
    """:class:`~reprise.rl.PPO` with AdamW, whose epochs stop once the policy is ``target_kl`` away from where it was.

    The divergence is estimated by the mean of ratio - 1 - log ratio on the last minibatch of each epoch, before its
    update; the update is still made. Learning rates fall to zero by a cosine over the iterations of one
    :meth:`learn`; the actor's first rises from 0, so that in the first iteration the critic alone learns.

    Args:
        env: as of PPO.
        policy: a module that gives a distribution and values, with ``groups()``: the actor's and the critic's
            parameters.
        actor_rate, critic_rate: peak learning rates.
        target_kl: nats.
        warm_up: iterations until the actor's rate is at its peak.
        decay: False keeps the rates at their peaks.
        weight_decay: of AdamW.
        max_grad_norm: of actor and critic together.
        **settings: of PPO.

    Raises:
        ValueError: settings that do not fit.

    Example:
        >>> from reprise.policies.resip import ResidualActorCritic
        >>> from reprise.testing import Match
        >>> ppo = TargetKLPPO(Match(), ResidualActorCritic(1, 1), n_steps=16, batch_size=128, seed=0)
        >>> ppo.learn(256).epochs <= 10
        True
    """

    def __init__(
        self,
        env: VectorEnv,
        policy: nn.Module,
        *,
        actor_rate: float = 3e-4,
        critic_rate: float = 5e-3,
        target_kl: float = 0.1,
        warm_up: int = 5,
        decay: bool = True,
        weight_decay: float = 1e-6,
        max_grad_norm: float | None = 1.0,
        **settings: Any,
    ) -> None:
        if not target_kl > 0 or warm_up < 0:
            raise ValueError(f"target_kl is above 0 and warm_up not below, not {target_kl} and {warm_up}")
        super().__init__(env, policy=policy, max_grad_norm=max_grad_norm, **settings)
        self.peaks, self.target_kl, self.warm_up, self.decay = (actor_rate, critic_rate), target_kl, warm_up, decay
        groups: list[list[nn.Parameter]] = self.policy.groups()  # type: ignore[operator]
        self.adam: GroupedAdam = GroupedAdam(groups, self.peaks, weight_decay, eps=1e-5)
        self.iteration, self.iterations = 0, 1  # of this learning
        self.epochs = 0  # of the last iteration

    def learn(self, total_steps: int, on_step: OnStep | None = None) -> TargetKLPPO:
        """As of PPO; the learning rates have fallen to zero at the end."""
        self.iteration, self.iterations = 0, math.ceil(total_steps / (self.n_steps * self.env.num_envs))
        super().learn(total_steps, on_step)
        return self

    def rates(self) -> list[float]:
        """The learning rates of actor and critic in this iteration."""
        actor, critic = self.peaks
        share = 0.5 * (1 + math.cos(math.pi * self.iteration / self.iterations)) if self.decay else 1.0
        rising = min(1.0, self.iteration / self.warm_up) if self.warm_up else 1.0
        return [actor * share * rising, critic * share]

    def update(self, batch: dict[str, Any]) -> dict[str, float]:
        """Climb the objective until the epochs are over or the policy has moved far enough."""
        size = len(batch["advantage"])
        self.adam.rates = self.rates()
        for epoch in range(1, self.n_epochs + 1):
            order = torch.randperm(size, generator=self.generator, device=self.device)
            shuffled = {key: take(batch[key], order) for key in NEEDED}
            for start in range(0, size, self.batch_size):
                minibatch = {key: take(value, slice(start, start + self.batch_size)) for key, value in shuffled.items()}
                self._step(minibatch, None)
            self.epochs = epoch
            if self._moved() > self.target_kl:
                break
        self.iteration += 1
        return self._judge(batch, batch["distribution"]) | {"epochs": float(self.epochs)}

    def _moved(self) -> float:
        """Estimate of the divergence from the policy that acted, on the last minibatch before its update."""
        return float((self.log_ratio.exp() - 1 - self.log_ratio).mean())
