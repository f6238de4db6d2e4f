"""The transformer of Diffusion Policy: the actions of a noisy chunk look at each other, at the step, at what is seen.

Names of parameters are those of the published code, so that its weights can be loaded.

Source: Chi et al., Diffusion Policy, RSS 2023, section III A ("time-series diffusion transformer").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.mish import Mish
from reprise.nn.step_embedding import SinusoidalEmbedding

__all__ = ["DiffusionTransformer"]


class DiffusionTransformer(nn.Module):
    """A pre-norm transformer decoder over the actions of a chunk, with cross-attention to step and observations.

    Args:
        input_dim: A, numbers in an action.
        horizon: H, actions in a chunk.
        cond_dim: numbers in what is seen at one step.
        history: T_o, steps at which something was seen; each is a token.
        embed_dim: of the tokens.
        n_layers, n_heads: of the decoder.
        embed_dropout, dropout: of the tokens where they enter, and in the layers.
        causal: action j sees the actions up to j, the step, and what was seen at the first j + 1 steps of the history.

    Raises:
        ValueError: heads that do not divide the embedding; at the call shapes that do not fit.

    Example:
        >>> net = DiffusionTransformer(2, 16, 5, 2, embed_dim=32, n_layers=2)
        >>> net(torch.randn(4, 16, 2), torch.zeros(4), torch.randn(4, 2, 5)).shape
        torch.Size([4, 16, 2])
    """

    mask: Tensor | None
    memory_mask: Tensor | None

    def __init__(
        self,
        input_dim: int,
        horizon: int,
        cond_dim: int,
        history: int = 1,
        *,
        embed_dim: int = 256,
        n_layers: int = 8,
        n_heads: int = 4,
        embed_dropout: float = 0.0,
        dropout: float = 0.3,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if embed_dim % n_heads:
            raise ValueError(f"{n_heads} heads do not divide an embedding of {embed_dim}")
        self.chunk, self.seen = (horizon, input_dim), (history, cond_dim)
        self.input_emb = nn.Linear(input_dim, embed_dim)
        self.pos_emb = nn.Parameter(torch.empty(1, horizon, embed_dim))
        self.drop = nn.Dropout(embed_dropout)
        self.time_emb = SinusoidalEmbedding(embed_dim)
        self.cond_obs_emb = nn.Linear(cond_dim, embed_dim)
        self.cond_pos_emb = nn.Parameter(torch.empty(1, 1 + history, embed_dim))
        self.encoder = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), Mish(), nn.Linear(4 * embed_dim, embed_dim))
        self.decoder = _Decoder(_DecoderLayer(embed_dim, n_heads, dropout) for _ in range(n_layers))
        self.ln_f = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, input_dim)
        action, memory = torch.arange(horizon)[:, None], torch.arange(1 + history)  # the step is the first token
        self.register_buffer("mask", _additive(action >= action.T) if causal else None)
        self.register_buffer("memory_mask", _additive(action >= memory - 1) if causal else None)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, H, A) noisy chunks, (B,) steps of the diffusion and (B, T_o, cond_dim) to (B, H, A)."""
        return self.denoise(x, self.contexts(t, condition))

    def contexts(self, t: Tensor, condition: Tensor) -> list[Tensor]:
        """Keys and values of step and condition in each layer. Steps (S, 1) give them for all S a sampler visits.

        Args:
            t: (B,) or (S, 1) steps.
            condition: (B, T_o, cond_dim).

        Returns:
            For each layer (B, 1 + T_o, 2 embed_dim), or (S, B, 1 + T_o, 2 embed_dim).
        """
        if condition.shape[1:] != self.seen:
            raise ValueError(f"the condition is (B, {self.seen[0]}, {self.seen[1]}), not {tuple(condition.shape)}")
        step = self.time_emb(t)[..., None, :] + self.cond_pos_emb[0, :1]
        seen = self.cond_obs_emb(condition) + self.cond_pos_emb[0, 1:]
        step, seen = (self.encoder(self.drop(tokens)) for tokens in (step, seen))  # which sees each token alone
        shape = torch.broadcast_shapes(step.shape[:-2], seen.shape[:-2])
        memory = torch.cat([tokens.expand(*shape, -1, -1) for tokens in (step, seen)], -2)
        return [layer.multihead_attn.keys_and_values(memory) for layer in cast(Any, self.decoder.layers)]

    def denoise(self, x: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """As :meth:`forward`, with what :meth:`contexts` returned."""
        if x.shape[1:] != self.chunk:
            raise ValueError(f"chunks are (B, {self.chunk[0]}, {self.chunk[1]}), not {tuple(x.shape)}")
        x = self.drop(self.input_emb(x) + self.pos_emb)
        for layer, memory in zip(self.decoder.layers, contexts, strict=True):
            x = layer(x, memory, self.mask, self.memory_mask)
        return self.head(self.ln_f(x))

    def decayed(self) -> list[nn.Parameter]:
        """The parameters that weight decay is for: matrices, but not positions."""
        positions = {id(self.pos_emb), id(self.cond_pos_emb)}
        return [parameter for parameter in self.parameters() if parameter.ndim > 1 and id(parameter) not in positions]


class _Decoder(nn.Module):
    """A list of layers under the name that it has in the published weights."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class _DecoderLayer(nn.Module):
    """Self-attention, attention to the memory, perceptron; each behind a normalisation and added to what came in."""

    def __init__(self, embed_dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(embed_dim, n_heads, dropout)
        self.multihead_attn = _Attention(embed_dim, n_heads, dropout)
        self.linear1, self.linear2 = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, memory_mask: Tensor | None) -> Tensor:
        h = self.norm1(x)
        x = x + self.dropout(self.self_attn(h, self.self_attn.keys_and_values(h), mask))
        x = x + self.dropout(self.multihead_attn(self.norm2(x), memory, memory_mask))
        return x + self.dropout(self.linear2(self.dropout(F.gelu(self.linear1(self.norm3(x))))))


class _Attention(nn.Module):
    """As ``nn.MultiheadAttention``, but keys and values can be computed before."""

    def __init__(self, embed_dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def keys_and_values(self, x: Tensor) -> Tensor:
        E = x.shape[-1]
        return F.linear(x, self.in_proj_weight[E:], self.in_proj_bias[E:])

    def forward(self, x: Tensor, keys_and_values: Tensor, mask: Tensor | None) -> Tensor:
        E = x.shape[-1]
        q = F.linear(x, self.in_proj_weight[:E], self.in_proj_bias[:E])
        q, k, v = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in (q, *keys_and_values.chunk(2, -1))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _additive(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
