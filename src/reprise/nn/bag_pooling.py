"""Pooling of bags of instances: by attention, mean or maximum; padding does not count."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["AttentionPooling", "MaxPooling", "MeanPooling"]


class AttentionPooling(nn.Module):
    """Σ a_k h_k with a_k ∝ exp(wᵀ tanh(V h_k)), or gated: exp(wᵀ (tanh(V h_k) ⊙ sigmoid(U h_k))).

    Source: Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, equations 8 and 9.

    Args:
        size: entries of an instance.
        hidden: hidden units.
        gated: whether to gate.

    Example:
        >>> AttentionPooling(8, gated=True)(torch.randn(2, 5, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(self, size: int, hidden: int = 128, gated: bool = False) -> None:
        super().__init__()
        self.V = nn.Linear(size, hidden)
        self.U = nn.Linear(size, hidden) if gated else None
        self.w = nn.Linear(hidden, 1)

    def forward(self, bags: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S, size) to (B, size); ``padding`` (B, S) is True where there is no instance."""
        return (self.association(bags, padding)[:, None] @ bags).squeeze(1)

    def association(self, bags: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S): how much each instance counts."""
        padding = _check(bags, padding)
        hidden = self.V(bags).tanh()
        if self.U is not None:
            hidden = hidden * self.U(bags).sigmoid()
        scores = self.w(hidden).squeeze(-1)
        return torch.softmax(scores.masked_fill(padding, -math.inf), 1)


class MeanPooling(nn.Module):
    """The mean of the instances.

    Example:
        >>> MeanPooling()(torch.ones(2, 5, 8)).shape
        torch.Size([2, 8])
    """

    def forward(self, bags: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S, size) to (B, size); ``padding`` (B, S) is True where there is no instance."""
        padding = _check(bags, padding)
        return bags.masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True)


class MaxPooling(nn.Module):
    """The maximum of every entry over the instances.

    Example:
        >>> MaxPooling()(torch.ones(2, 5, 8)).shape
        torch.Size([2, 8])
    """

    def forward(self, bags: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S, size) to (B, size); ``padding`` (B, S) is True where there is no instance."""
        return bags.masked_fill(_check(bags, padding)[..., None], -math.inf).amax(1)


def _check(bags: Tensor, padding: Tensor | None) -> Tensor:
    if bags.ndim != 3 or bags.shape[1] == 0:
        raise ValueError(f"bags are (B, S, size) with S at least 1, not {tuple(bags.shape)}")
    if padding is None:
        return torch.zeros(bags.shape[:2], dtype=torch.bool, device=bags.device)
    if padding.dtype != torch.bool or padding.shape != bags.shape[:2]:
        raise ValueError(
            f"padding is {tuple(bags.shape[:2])} booleans, True where nothing is, not {tuple(padding.shape)}"
        )
    if padding.all(1).any():
        raise ValueError(f"bag {int(padding.all(1).nonzero()[0])} has no instance: all of it is padding; leave it out")
    return padding
