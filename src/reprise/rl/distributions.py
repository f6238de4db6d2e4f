"""Distributions over actions with everything in closed form, gradients included.

They hold a batch of parameters, and sampling turns noise that was drawn before into actions, so that the noise of a
whole rollout is one call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Categorical", "Distribution", "Gaussian", "squashed_log_prob"]

LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """What :class:`~reprise.rl.PPO` needs of a distribution over a batch of B actions."""

    def noise(self, *size: int, generator: torch.Generator) -> Tensor:
        """Noise for (*size, B) samples."""

    def sample(self, noise: Tensor) -> Tensor:
        """One action for each of the batch."""

    def mode(self) -> Tensor:
        """The likeliest actions."""

    def log_prob(self, action: Tensor) -> Tensor:
        """(B,) log densities or log probabilities of the actions."""

    def entropy(self) -> Tensor:
        """(B,) entropies in nats."""

    def kl(self, other: Distribution) -> Tensor:
        """(B,) divergences KL(self || other) in nats."""

    def detach(self) -> Distribution:
        """The same without a gradient."""

    def __getitem__(self, index: Tensor | slice) -> Distribution:
        """Some of the batch."""


@dataclass
class Categorical:
    """One of A actions.

    Attributes:
        logits: (B, A), of any offset.

    Example:
        >>> dist = Categorical(torch.tensor([[0.0, math.log(3)]]))
        >>> dist.log_prob(torch.tensor([1])).exp()
        tensor([0.7500])
    """

    logits: Tensor

    def __post_init__(self) -> None:
        self.log_p = self.logits.log_softmax(-1)

    def noise(self, *size: int, generator: torch.Generator) -> Tensor:
        """(*size, B, A) draws from the standard Gumbel distribution."""
        shape = (*size, *self.logits.shape)
        return -torch.empty(shape, device=self.logits.device).exponential_(generator=generator).log()

    def sample(self, noise: Tensor) -> Tensor:
        """(B,) indices; the largest of logit plus Gumbel noise is a sample."""
        return (self.logits + noise).argmax(-1)

    def mode(self) -> Tensor:
        """(B,) indices."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """(B,) from (B,) indices."""
        return self.log_p.gather(-1, action[:, None].long())[:, 0]

    def entropy(self) -> Tensor:
        """(B,) in nats."""
        return -(self.log_p.exp() * self.log_p).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """(B,) KL(self || other) in nats."""
        assert isinstance(other, Categorical)
        return (self.log_p.exp() * (self.log_p - other.log_p)).sum(-1)

    def detach(self) -> Categorical:
        return Categorical(self.logits.detach())

    def __getitem__(self, index: Tensor | slice) -> Categorical:
        return Categorical(self.logits[index])

    def gradient(
        self, action: Tensor, log_prob: Tensor, entropy: float, old: Distribution | None, kl: float
    ) -> tuple[Tensor]:
        """Gradient of ``sum(log_prob * log_prob(action) + entropy * entropy() + kl * old.kl(self))`` by the logits.

        Args:
            action: (B,) indices.
            log_prob: (B,) weights of the log-probabilities.
            entropy, kl: weights of the entropies and of the divergences from ``old``.
        """
        p = self.log_p.exp()
        gradient = p * -log_prob[:, None]
        gradient.scatter_add_(1, action[:, None].long(), log_prob[:, None])
        if entropy:
            weighted = p * self.log_p
            gradient += entropy * (p * weighted.sum(-1, keepdim=True) - weighted)
        if kl:
            assert isinstance(old, Categorical)
            gradient += kl * (p - old.log_p.exp())
        return (gradient,)


@dataclass
class Gaussian:
    """A vector of A independent normal numbers.

    Attributes:
        mean: (B, A).
        log_std: (A,), the same for the whole batch.

    Example:
        >>> dist = Gaussian(torch.zeros(1, 2), torch.zeros(2))
        >>> dist.log_prob(torch.zeros(1, 2)).exp() * 2 * math.pi
        tensor([1.0000])
    """

    mean: Tensor
    log_std: Tensor

    def noise(self, *size: int, generator: torch.Generator) -> Tensor:
        """(*size, B, A) standard normal numbers."""
        return torch.randn((*size, *self.mean.shape), generator=generator, device=self.mean.device)

    def sample(self, noise: Tensor) -> Tensor:
        """(B, A)."""
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def mode(self) -> Tensor:
        """(B, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """(B,) from (B, A)."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -0.5 * z.square().sum(-1) - (self.log_std.sum() + 0.5 * LOG_2PI * self.mean.shape[-1])

    def entropy(self) -> Tensor:
        """(B,) in nats."""
        one = self.log_std.sum() + 0.5 * (1 + LOG_2PI) * self.mean.shape[-1]
        return one.expand(len(self.mean))

    def kl(self, other: Distribution) -> Tensor:
        """(B,) KL(self || other) in nats."""
        assert isinstance(other, Gaussian)
        spread = (2 * self.log_std).exp() + (self.mean - other.mean).square()
        return (other.log_std - self.log_std + 0.5 * spread * (-2 * other.log_std).exp() - 0.5).sum(-1)

    def detach(self) -> Gaussian:
        return Gaussian(self.mean.detach(), self.log_std.detach().clone())  # a parameter, which training moves

    def __getitem__(self, index: Tensor | slice) -> Gaussian:
        return Gaussian(self.mean[index], self.log_std)

    def gradient(
        self, action: Tensor, log_prob: Tensor, entropy: float, old: Distribution | None, kl: float
    ) -> tuple[Tensor, Tensor]:
        """Gradient of ``sum(log_prob * log_prob(action) + entropy * entropy() + kl * old.kl(self))``.

        Args:
            action: (B, A).
            log_prob: (B,) weights of the log densities.
            entropy, kl: weights of the entropies and of the divergences from ``old``.

        Returns:
            By the mean (B, A), and by the log standard deviations (A,).
        """
        precision = (-2 * self.log_std).exp()
        away = action - self.mean
        by_mean = away * precision * log_prob[:, None]
        by_log_std = (by_mean * away).sum(0) - log_prob.sum() + entropy * len(self.mean)
        if kl:
            assert isinstance(old, Gaussian)
            moved = self.mean - old.mean
            by_mean = by_mean.addcmul_(moved, precision, value=kl)
            spread = (2 * old.log_std).exp() + moved.square()
            by_log_std += kl * (1 - spread * precision).sum(0)
        return by_mean, by_log_std


def squashed_log_prob(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action ``tanh(mean + exp(log_std) * noise)`` and its log density, exact for large arguments, too.

    Args:
        mean, log_std, noise: (..., A).

    Returns:
        actions (..., A) in [-1, 1] and log densities (...,).

    Source: Haarnoja et al., Soft Actor-Critic, ICML 2018, appendix C.

    Example:
        >>> action, log_prob = squashed_log_prob(torch.zeros(1), torch.zeros(1), torch.zeros(1))
        >>> action, log_prob  # of a standard normal number, at 0
        (tensor([0.]), tensor(-0.9189))
    """
    u = torch.addcmul(mean, log_std.exp(), noise)
    # log(1 - tanh(u)^2) without the cancellation of the left side.
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), (-0.5 * noise.square() - log_std - log_slope).sum(-1) - 0.5 * LOG_2PI * mean.shape[-1]
