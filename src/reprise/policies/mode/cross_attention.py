"""The dense baseline: action tokens that look at goal, observations and noise level by cross-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reprise.nn.qk_norm_attention import QKNormAttention
from reprise.nn.rms_norm import RMSNorm
from reprise.nn.swish_glu import GatedMLP
from reprise.policies.mode.embedding import TokenEmbedding

__all__ = ["CrossAttentionTransformer"]


class CrossAttentionTransformer(nn.Module):
    """A transformer decoder over noisy actions, conditioned by cross-attention, called like a MoDETransformer.

    Each layer: causal self-attention of the actions, cross-attention to [phi(sigma), goal, observations], a gated
    perceptron; all three after an RMS norm and added to the residual stream.

    Args:
        obs_dim, goal_dim, action_dim, embed_dim, n_layers, n_heads, horizon, history, goal_dropout: as in
            :class:`~reprise.policies.mode.MoDETransformer`.
        mlp_ratio: hidden width of the perceptron over D; 8 gives it the multiply-adds of two experts.
        attention_dropout, mlp_dropout: probabilities.

    Raises:
        ValueError: sizes or shapes that do not fit.

    Source: the transformer of Chi et al., Diffusion Policy, RSS 2023, with the norms and units of MoDE.

    Example:
        >>> net = CrossAttentionTransformer(16, 8, 2, embed_dim=32, n_layers=2, n_heads=4, horizon=6)
        >>> net(torch.randn(3, 6, 2), torch.zeros(3), torch.randn(3, 2, 16), torch.randn(3, 8)).shape
        torch.Size([3, 6, 2])
    """

    def __init__(
        self,
        obs_dim: int,
        goal_dim: int | None,
        action_dim: int,
        *,
        embed_dim: int = 1024,
        n_layers: int = 8,
        n_heads: int = 8,
        horizon: int = 10,
        history: int = 1,
        goal_dropout: float = 0.1,
        mlp_ratio: float = 8.0,
        attention_dropout: float = 0.3,
        mlp_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(
            obs_dim, goal_dim, action_dim, embed_dim, horizon=horizon, history=history, goal_dropout=goal_dropout
        )
        hidden = round(mlp_ratio * embed_dim)
        self.blocks = nn.ModuleList(
            DecoderBlock(embed_dim, n_heads, hidden, attention_dropout, mlp_dropout) for _ in range(n_layers)
        )
        self.norm = RMSNorm(embed_dim)
        self.head = nn.Linear(embed_dim, action_dim)

    def forward(self, actions: Tensor, c_noise: Tensor, observations: Tensor, goal: Tensor | None = None) -> Tensor:
        """Arguments and result as of :class:`~reprise.policies.mode.MoDETransformer`."""
        tokens = self.embedding(actions, c_noise, observations, goal)
        parts = [tokens.noise.expand(len(actions), -1, -1), *([] if tokens.goal is None else [tokens.goal])]
        memory, x = torch.cat([*parts, tokens.observations], 1), tokens.actions
        for block in self.blocks:
            x = block(x, memory)
        return self.head(self.norm(x))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention and a gated perceptron, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, n_heads: int, hidden: int, attention_dropout: float, mlp_dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = RMSNorm(dim), RMSNorm(dim), RMSNorm(dim)
        self.attention = QKNormAttention(dim, n_heads, dropout=attention_dropout, causal=True)
        self.cross_attention = QKNormAttention(dim, n_heads, dropout=attention_dropout)
        self.mlp = GatedMLP(dim, hidden, mlp_dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, H, D) and what is known, (B, M, D), to (B, H, D)."""
        x = x + self.attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), memory)
        return x + self.mlp(self.norm3(x))
