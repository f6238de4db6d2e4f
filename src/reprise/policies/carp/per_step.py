"""Conventional autoregression over actions, which CARP is measured against: one token after the other, step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reprise.policies.carp.adaln import AdaLNTransformer, initialize
from reprise.policies.carp.transformer import pick

__all__ = ["ActionBins", "PerStepTransformer"]


class ActionBins(nn.Module):
    """Numbers in [-1, 1] as the numbers of equal bins, and back to the middles of these.

    Args:
        bins: how many.

    Example:
        >>> bins = ActionBins(4)
        >>> bins.encode(torch.tensor([-1.0, 0.1, 1.0])), bins.decode(torch.tensor([0, 3]))
        (tensor([0, 2, 3]), tensor([-0.7500,  0.7500]))
    """

    def __init__(self, bins: int = 256) -> None:
        super().__init__()
        self.bins = bins

    def encode(self, actions: Tensor) -> Tensor:
        """(...) numbers to (...) int64; what lies outside goes to the nearest bin."""
        return ((actions + 1) * (self.bins / 2)).floor().long().clamp(0, self.bins - 1)

    def decode(self, indices: Tensor) -> Tensor:
        """(...) int64 to (...) numbers."""
        return (indices + 0.5) * (2 / self.bins) - 1


class PerStepTransformer(nn.Module):
    """CARP's transformer with a plain causal mask: each token sees those before it, by time and then by dimension.

    Args:
        cond_dim: numbers in the observation, all its steps together.
        action_dim: Da, dimensions of an action.
        horizon: H, actions in a chunk; there are H * Da tokens.
        bins: values that a token can take.
        embed_dim, depth, heads, drop_path: as in :class:`~reprise.policies.carp.CoarseToFineTransformer`.

    Example:
        >>> transformer = PerStepTransformer(40, 2, embed_dim=16, depth=2)
        >>> transformer(torch.zeros(3, 40), torch.zeros(3, 32, dtype=torch.long)).shape
        torch.Size([3, 32, 256])
        >>> transformer.generate(torch.zeros(3, 40)).shape
        torch.Size([3, 32])
    """

    def __init__(
        self,
        cond_dim: int,
        action_dim: int,
        horizon: int = 16,
        bins: int = 256,
        *,
        embed_dim: int = 64,
        depth: int = 8,
        heads: int | None = None,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        self.obs_embed = nn.Linear(cond_dim, embed_dim)
        self.word_embed = nn.Embedding(bins, embed_dim)
        self.pos_start = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos = nn.Parameter(torch.empty(1, horizon * action_dim, embed_dim))
        self.trunk = AdaLNTransformer(embed_dim, depth, heads or depth, bins, drop_path)
        initialize(self, embed_dim)

    def forward(self, cond: Tensor, indices: Tensor) -> Tensor:
        """Logits (B, L, bins) of all tokens (B, L), each given those before it."""
        c = self.obs_embed(cond)
        x = torch.cat([c[:, None] + self.pos_start, self.word_embed(indices[:, :-1])], 1) + self.pos
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return self.trunk(x, self.trunk.modulations(c), causal)

    @torch.no_grad()
    def generate(self, cond: Tensor, *, top_k: int = 1, uniform: Tensor | None = None) -> Tensor:
        """Indices (B, L), in L passes over one token each; arguments as in CARP's transformer."""
        c, length = self.obs_embed(cond), self.pos.shape[1]
        modulations, caches = self.trunk.modulations(c), self.trunk.caches(len(c), length)
        if top_k > 1 and uniform is None:
            uniform = torch.rand(len(c), length, device=c.device)
        x, indices = c[:, None] + self.pos_start, list[Tensor]()
        for i in range(length):
            logits = self.trunk(x + self.pos[:, i : i + 1], modulations, caches=caches)
            indices.append(pick(logits, top_k, None if uniform is None else uniform[:, i : i + 1]))
            x = self.word_embed(indices[i])
        return torch.cat(indices, 1)
