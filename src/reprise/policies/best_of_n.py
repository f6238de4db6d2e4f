"""The best of several plans: a frozen policy proposes, a critic of chunks that is learned from reward disposes.

Source: the extraction of a policy in Hansen-Estruch et al., IDQL: Implicit Q-Learning as an Actor-Critic Method with
Diffusion Policies, 2023, arXiv 2304.10573; here the critic is learned with the best of n as its next action.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from reprise.policies.dsrl import DSRL
from reprise.rl.vector import flatten, tensors

__all__ = ["BestOfN"]


class BestOfN(DSRL):
    """Draw n plans from a frozen policy and play the one that the critics value most.

    Args:
        env, policy, **settings: as of :class:`~reprise.policies.DSRL`; there is no actor to be learned, so that bound,
            temperature and distillation have no effect.
        proposals: n.
        target_proposals: how many are drawn for the next action in an update, where they cost most.

    Example:
        >>> from reprise.envs import PegInsert
        >>> env = PegInsert(4, task="two_slots")
        >>> policy = lambda observation, noise: noise.tanh()
        >>> best = BestOfN(env, policy, execute=4, proposals=3, hidden=(16,), warm_up=2)
        >>> best.learn(16).act(np.zeros((3, 6))).shape
        (3, 4, 2)
    """

    def __init__(
        self, env: VectorEnv, policy: Any, *, proposals: int = 16, target_proposals: int = 4, **settings: Any
    ) -> None:
        if min(proposals, target_proposals) < 1:
            raise ValueError(f"at least one plan is proposed, not {proposals} and {target_proposals}")
        super().__init__(env, policy, **settings)
        self.proposals, self.target_proposals = proposals, target_proposals
        self.settings |= {"proposals": proposals, "target_proposals": target_proposals}

    @torch.no_grad()
    def propose(self, observation: Any, n: int, slow: bool = False) -> tuple[Tensor, Tensor]:
        """The best noises (B, noise_size), in units of the bound, and what the critics expect of them (B,).

        Args:
            observation: (B, ...) tensor, or a dictionary of such.
            n: plans that are drawn.
            slow: ask the critics' slow copy.
        """
        state = flatten(observation)
        noise = self._noise(len(state) * n)
        chunks = self.planner(_repeat(observation, n), noise)
        critics = self.target if slow else self.critics
        values = self._join(critics(state.repeat_interleave(n, 0), chunks)).view(-1, n)
        best = values.argmax(1)
        rows = torch.arange(len(state), device=self.device)
        return noise.view(len(state), n, -1)[rows, best] / self.noise_bound, values[rows, best]

    def _act(self, observation: Any) -> Tensor:
        return self.propose(tensors(observation, self.device), self.proposals)[0]

    def act(self, observation: Any, deterministic: bool = False) -> np.ndarray:
        """(B, execute, A) the best of n plans; always drawn anew."""
        return super().act(observation)

    def update(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step of the critics towards the best of n plans, and of their slow copy."""
        best = self.propose(batch["next_observation"], self.target_proposals, slow=True)[1]
        target = batch["reward"] + batch["discount"] * best
        self.critic_adam.zero_grad()
        q = self.critics(batch["observation"], batch["action"])
        loss = 0.5 * (q - target).square().mean(1).sum()
        loss.backward()
        self.critic_adam.step()
        self.slow.lerp_(self.critic_adam.vector, self.tau)
        self.updates += 1
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def distill(self) -> Tensor:
        """Nothing: no actor asks for the value of a noise."""
        return torch.zeros((), device=self.device)


def _repeat(observation: Any, n: int) -> Any:
    if isinstance(observation, dict):
        return {key: _repeat(value, n) for key, value in observation.items()}
    return observation.repeat_interleave(n, 0)
