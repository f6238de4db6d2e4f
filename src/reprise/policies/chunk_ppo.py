"""PPO on a cloned policy that plans chunks: the whole chunk is the action of one decision.

What residual learning is compared with: the cloned network itself is fine-tuned, as the mean of a narrow Gaussian, and
held near its beginning.

Source: Ankile, Simeonov, Shenfeld, Torne and Agrawal, From Imitation to Refinement, 2024, arXiv 2407.16677 (baseline).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from reprise.envs.chunks import ChunkedEnv
from reprise.policies.bc import BC
from reprise.policies.resip import ResidualActorCritic
from reprise.rl.distributions import Distribution, Gaussian
from reprise.rl.ppo import OnStep
from reprise.rl.target_kl import TargetKLPPO
from reprise.rl.vector import flatten, tensors

__all__ = ["GaussianChunks", "fit_chunks"]


class GaussianChunks(nn.Module):
    """A Gaussian around a cloned policy's chunks, and a critic.

    Args:
        cloned: trained; its network is copied, once to be trained on and once to be kept.
        execute: actions of a plan that are played.
        log_std: logarithm of the standard deviation in scaled actions, the same everywhere, not learned.
        hidden: widths of the critic.

    Example:
        >>> from reprise.data import Episodes
        >>> walk = Episodes({"state": np.zeros((8, 3))}, np.ones((8, 2), np.float32), np.array([8]))
        >>> cloned = BC(horizon=4, width=16, blocks=1).fit(walk, steps=5)
        >>> chunks = GaussianChunks(cloned, execute=4)
        >>> chunks.plan(np.zeros((5, 3))).shape
        (5, 4, 2)
    """

    def __init__(
        self, cloned: BC, execute: int, *, log_std: float = -5.0, hidden: tuple[int, ...] = (256, 256)
    ) -> None:
        super().__init__()
        if not 1 <= execute <= cloned.horizon or cloned.history != 1:
            raise ValueError(
                f"of chunks of {cloned.horizon} actions after {cloned.history} observations {execute} cannot be "
                "executed: 1 to the horizon, after one observation"
            )
        self.mean = copy.deepcopy(cloned.module).eval()  # dropout would make ratios of probabilities meaningless
        self.cloned = copy.deepcopy(cloned.module).eval().requires_grad_(False)
        self.observations, self.actions = (copy.deepcopy(cloned.normalizers[name]) for name in ("state", "actions"))
        size, self.execute = len(self.observations.offset), execute
        self.critic = ResidualActorCritic(size, 1, hidden=hidden).critic
        scale = self.actions.scale.log().repeat(execute)
        self.log_std = nn.Parameter(log_std + scale, requires_grad=False)  # in the units of the environment

    def train(self, mode: bool = True) -> GaussianChunks:
        """Stays in evaluation mode."""
        return super().train(False)

    def groups(self) -> list[list[nn.Parameter]]:
        """The actor's parameters and the critic's."""
        return [[*self.mean.parameters()], [*self.critic.parameters()]]

    def forward(self, observation: Any) -> tuple[Gaussian, Tensor]:
        """Observations (B, O) to the distribution over flat chunks in the units of the environment, and values."""
        seen = self.observations(flatten(observation))
        return Gaussian(self._chunk(self.mean, seen), self.log_std), self.critic(seen)[:, 0]

    def likelihood_penalty(self, observation: Any, noise: Tensor) -> Tensor:
        """Negative log-likelihood of own samples under the cloned policy's Gaussian, mean over batch and dimensions.

        Args:
            observation: (B, O).
            noise: (B, execute * A) standard normal numbers.
        """
        seen = self.observations(flatten(observation))
        sample = torch.addcmul(self._chunk(self.mean, seen), self.log_std.exp(), noise)
        with torch.no_grad():
            kept = Gaussian(self._chunk(self.cloned, seen), self.log_std)
        return -kept.log_prob(sample).mean() / sample.shape[1]

    @torch.no_grad()
    def plan(self, observation: Any, noise: Tensor | None = None) -> np.ndarray:
        """(B, execute, A) the mean chunks, or with noise (B, execute * A) samples."""
        distribution, _ = self(tensors(observation, self.log_std.device))
        chunk = distribution.mean if noise is None else distribution.sample(noise)
        return chunk.unflatten(1, (self.execute, -1)).cpu().numpy()

    def _chunk(self, network: nn.Module, seen: Tensor) -> Tensor:
        """(B, execute * A) in the units of the environment."""
        batch = {"observations": {"state": seen[:, None]}}
        scaled = network(batch).unflatten(1, (-1, len(self.actions.offset)))[:, : self.execute]
        return self.actions.inverse(scaled).flatten(1)


class ChunkPPO(TargetKLPPO):
    """PPO over chunks that also pays for leaving the cloned policy."""

    penalty = 1.0

    def loss(self, minibatch: dict[str, Any], old: Distribution | None = None) -> Tensor:
        """PPO's loss plus the penalty."""
        noise = torch.randn(minibatch["action"].shape, generator=self.generator, device=self.device)
        paid = self.policy.likelihood_penalty(minibatch["observation"], noise)  # type: ignore[operator]
        return super().loss(minibatch, old) + self.penalty * paid


def fit_chunks(
    env: VectorEnv,
    policy: GaussianChunks,
    total_steps: int,
    *,
    n_steps: int = 700,
    batch_size: int | None = None,
    n_epochs: int = 10,
    learning_rate: float = 1e-4,
    penalty: float = 1.0,
    target_kl: float = 0.1,
    gamma: float = 0.999,
    gae_lambda: float = 0.95,
    seed: int | None = None,
    on_step: OnStep | None = None,
) -> ChunkedEnv:
    """Fine-tune the cloned network by PPO over chunks.

    Args:
        env: any vector environment that starts finished episodes again in the same step.
        policy: trained in place.
        total_steps: in all environments together, counted as if every chunk were played to its end.
        n_steps: environment steps per iteration and environment.
        batch_size: chunks per update; None is all of an iteration, as published.
        learning_rate: of actor and critic, constant.
        penalty: of the likelihood under the cloned policy.
        n_epochs, target_kl, gamma, gae_lambda, seed, on_step: as of :func:`~reprise.policies.fit_residual`.

    Returns:
        The environment as chunks; its ``played`` are the steps that were really made.

    Raises:
        TypeError, ValueError: an environment or sizes that do not fit.
        Diverged: a loss or a weight is not finite.
    """
    chunked = ChunkedEnv(env, policy.execute, time_limit_ends=True)
    decisions = math.ceil(n_steps / policy.execute)
    ppo = ChunkPPO(
        chunked, policy, actor_rate=learning_rate, critic_rate=learning_rate, target_kl=target_kl, warm_up=0,
        decay=False, weight_decay=0.0, n_steps=decisions, batch_size=batch_size or decisions * env.num_envs,
        n_epochs=n_epochs, gamma=gamma, gae_lambda=gae_lambda, vf_coef=0.25, seed=seed, device=policy.log_std.device,
    )  # fmt: skip
    ppo.penalty = penalty
    ppo.learn(math.ceil(total_steps / policy.execute), on_step)
    return chunked
